# The three programs, each as small as the image that it is for.
{
  pkgs,
  # The crates of Cargo.lock: for all of them the same.
  cargoDeps,
  # Appended to the names: see rust.nix.
  suffix ? "",
}:
let
  # Static, by musl: nothing but ring's C and assembler is in it beside Rust.
  small =
    static: package: crates:
    import ./rust.nix {
      inherit (static) rustPlatform;
      inherit cargoDeps package crates;
      name = package + suffix;
      profile = "init";
    };
  # Elsewhere the crate compiles RocksDB by itself: other flags would be due there.
  rocksdb =
    if pkgs.stdenv.hostPlatform.isx86_64 then
      {
        ROCKSDB_LIB_DIR = import ./rocksdb.nix { inherit pkgs; };
        ROCKSDB_STATIC = "1";
      }
    else
      { };
in
{
  # Static, by glibc: Debian has no C++ library for musl, and the heap of the controller is set up for glibc's malloc
  # (heap/). What glibc would load at run time is not needed: names are resolved by /etc/hosts and DNS, which it does by
  # itself (image-test/).
  controller = import ./rust.nix {
    inherit (pkgs) rustPlatform;
    inherit cargoDeps;
    package = "kubernetes-vault";
    name = "kubernetes-vault" + suffix;
    profile = "image";
    crates = [
      "src"
      "heap"
      "init"
      "deploy/monitoring"
    ];
    rustflags = [
      "-C target-feature=+crt-static"
      # A static binary that may be anywhere in memory has 75,000 addresses to adjust at its start: 1.7 MiB, or 30 KiB as
      # a bitmap.
      "-C link-arg=-Wl,-z,pack-relative-relocs"
      "-L native=${import ./static-cxx.nix { inherit pkgs; }}"
    ];
    nativeBuildInputs = [ pkgs.rustPlatform.bindgenHook ];
    buildInputs = [ pkgs.glibc.static ];
    env = rocksdb;
  };
  init = small pkgs.pkgsStatic "kubernetes-vault-init" [ "init" ];
  sample-app = small pkgs.pkgsStatic "sample-app" [ "sample-app" ];
  aarch64 =
    let
      static = pkgs.pkgsCross.aarch64-multiplatform-musl.pkgsStatic;
    in
    {
      init = small static "kubernetes-vault-init" [ "init" ];
      sample-app = small static "sample-app" [ "sample-app" ];
    };
  demo = import ./rust.nix {
    inherit (pkgs) rustPlatform;
    inherit cargoDeps;
    package = "kubernetes-vault-demo";
    profile = "release";
    crates = [
      "deploy"
      "tests/demo"
      "tests/testbed"
    ];
  };
  workspace-check = import ./workspace-check.nix { inherit pkgs cargoDeps rocksdb; };
}
