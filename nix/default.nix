# Everything that the flake offers, as a function of a package set: nixpkgs, or nix/hostpkgs where that is out of reach.
{ pkgs }:
let
  platform = pkgs.stdenv.hostPlatform;
  inherit (import ./workspace.nix) version;
  cargoDeps = pkgs.rustPlatform.importCargoLock { lockFile = ../Cargo.lock; };
  programs = import ./programs.nix { inherit pkgs cargoDeps; };
  # The same once more, under other names.
  again = import ./programs.nix {
    inherit pkgs cargoDeps;
    suffix = "-again";
  };

  imagesOf =
    architecture: programs:
    builtins.intersectAttrs programs (
      builtins.mapAttrs (name: image: image programs.${name}) (
        import ./image.nix {
          inherit pkgs architecture;
          tag = version;
        }
      )
    );
  images = imagesOf platform.go.GOARCH { inherit (programs) controller init sample-app; };
  # For the other architecture: what this one can compile for it, and that is all that has no C++ in it.
  crossed = if platform.isx86_64 then imagesOf "arm64" programs.aarch64 else { };
  index =
    name: image:
    import ./oci-index.nix {
      inherit pkgs;
      images = [ image ] ++ (if crossed ? ${name} then [ crossed.${name} ] else [ ]);
    };
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
    testbed-servers = import ./testbed-servers.nix { inherit pkgs; };
  }
  // prefixed "image-" images
  // prefixed "index-" (builtins.mapAttrs index images)
  // (
    if platform.isx86_64 then
      prefixed "aarch64-" programs.aarch64 // { librocksdb = import ./rocksdb.nix { inherit pkgs; }; }
    else
      { }
  );
in
{
  inherit packages;
  checks = import ./checks.nix {
    inherit pkgs packages programs;
    again = imagesOf platform.go.GOARCH { inherit (again) controller init sample-app; };
  };
  apps = import ./apps.nix { inherit pkgs packages programs; };
  devShells.default = pkgs.mkShell { packages = (import ./tools.nix pkgs).kind; };
}
