# The three programs, each as small as the image that it is for.
{
  pkgs,
  # Appended to the names: see rust.nix.
  suffix ? "",
}:
let
  # Static, by musl: nothing but ring's C and assembler is in it beside Rust.
  small =
    static: package: crates:
    import ./rust.nix {
      inherit (static) rustPlatform;
      inherit package crates;
      name = package + suffix;
      profile = "init";
    };
in
{
  init = small pkgs.pkgsStatic "kubernetes-vault-init" [ "init" ];
  sample-app = small pkgs.pkgsStatic "sample-app" [ "sample-app" ];
}
