# Everything that the flake offers, as a function of a package set: nixpkgs, or nix/hostpkgs where that is out of reach.
{ pkgs }:
let
  inherit (import ./workspace.nix) version;
  here = pkgs.stdenv.hostPlatform.go.GOARCH;
  programs = import ./programs.nix { inherit pkgs; };
  again = import ./programs.nix {
    inherit pkgs;
    suffix = "-again";
  };
  tools = import ./tools.nix pkgs;

  image =
    architecture:
    import ./image.nix {
      inherit pkgs architecture;
      tag = version;
    };
  imagesOf = programs: {
    controller = (image here).controller programs.controller;
    init = (image here).init programs.init;
    sample-app = (image here).sample-app programs.sample-app;
  };
  images = imagesOf programs;
  # Built on this machine for the other architecture: what has no C++ in it.
  crossed =
    if pkgs.stdenv.hostPlatform.isx86_64 then
      {
        init = [ ((image "arm64").init programs.aarch64.init) ];
        sample-app = [ ((image "arm64").sample-app programs.aarch64.sample-app) ];
      }
    else
      { };
  prefixed =
    prefix: set:
    builtins.listToAttrs (
      map (name: {
        name = prefix + name;
        value = set.${name};
      }) (builtins.attrNames set)
    );

  packages = {
    inherit (programs) controller init sample-app;
    default = programs.controller;
    images = import ./images.nix { inherit pkgs images; };
    manifests = import ./manifests.nix {
      inherit pkgs;
      inherit (programs) controller;
      pinned = images;
    };
    sbom = import ./sbom.nix { inherit pkgs; };
    testbed-servers = pkgs.linkFarm "testbed-servers" (
      map
        (server: {
          inherit (server) name;
          path = "${server.package}/bin/${server.name}";
        })
        (
          [
            {
              name = "etcd";
              package = pkgs.etcd;
            }
            {
              name = "kubectl";
              package = pkgs.kubectl;
            }
          ]
          ++
            map
              (name: {
                inherit name;
                package = pkgs.kubernetes;
              })
              [
                "kube-apiserver"
                "kube-controller-manager"
                "kube-scheduler"
              ]
        )
    );
  }
  // prefixed "image-" images
  // prefixed "index-" (
    builtins.mapAttrs (
      name: image:
      import ./oci-index.nix {
        inherit pkgs;
        images = [ image ] ++ (crossed.${name} or [ ]);
      }
    ) images
  )
  // (
    if pkgs.stdenv.hostPlatform.isx86_64 then
      prefixed "aarch64-" programs.aarch64 // { librocksdb = import ./rocksdb.nix { inherit pkgs; }; }
    else
      { }
  );
in
{
  inherit packages;
  checks = import ./checks.nix {
    inherit pkgs packages programs;
    again = imagesOf again;
  };
  apps = import ./apps.nix { inherit pkgs packages programs; };
  devShells.default = pkgs.mkShell { packages = tools.kind; };
}
