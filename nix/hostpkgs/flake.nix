{
  description = "A stand-in for nixpkgs: the few attributes that nix/ uses, made of the machine's own tools";

  outputs =
    { self }:
    {
      legacyPackages = builtins.listToAttrs (
        map (system: {
          name = system;
          value = import ./. { inherit system; };
        }) [
          "x86_64-linux"
          "aarch64-linux"
        ]
      );
    };
}
