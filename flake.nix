{
  description = "Hands every Kubernetes pod a single-use, response-wrapped AppRole secret_id from HashiCorp Vault";

  # The only input. Offline, nix/ci.sh puts nix/hostpkgs in its place.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAll =
        select:
        builtins.listToAttrs (
          map (system: {
            name = system;
            value = select (import ./nix { pkgs = nixpkgs.legacyPackages.${system}; });
          }) systems
        );
    in
    {
      packages = forAll (project: project.packages);
      checks = forAll (project: project.checks);
      apps = forAll (project: project.apps);
      devShells = forAll (project: project.devShells);
    };
}
