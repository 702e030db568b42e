# Everything that the flake offers, as a function of a package set: nixpkgs, or nix/hostpkgs where that is out of reach.
{ pkgs }:
let
  inherit (import ./workspace.nix) version;
  programs = import ./programs.nix { inherit pkgs; };
  native = import ./images.nix {
    inherit pkgs;
    tag = version;
    architecture = pkgs.stdenv.hostPlatform.go.GOARCH;
  };
  images = {
    init = native.init programs.init;
    sample-app = native.sample-app programs.sample-app;
  };
in
{
  packages = {
    inherit (programs) init sample-app;
    image-init = images.init;
    image-sample-app = images.sample-app;
  };
  checks = { };
  apps = { };
  devShells = { };
}
