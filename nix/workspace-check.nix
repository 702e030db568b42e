# Format, lints and unit tests of the whole workspace, in one derivation: its dependencies are compiled once. The suites
# that need real servers are `make test`'s: they want more of a machine than a sandbox is.
{
  pkgs,
  cargoDeps,
  rocksdb,
}:
pkgs.rustPlatform.buildRustPackage {
  pname = "workspace-check";
  inherit (import ./workspace.nix) version;
  src = import ./source.nix {
    withTests = true;
    paths = [
      ".cargo"
      "Cargo.lock"
      "Cargo.toml"
      "benches"
      "clippy.toml"
      "deploy"
      "docs"
      "heap"
      "init"
      "rustfmt.toml"
      "sample-app"
      "src"
      "stand-ins"
      "tests"
    ];
  };
  inherit cargoDeps;
  buildType = "debug";
  doCheck = false;
  auditable = false;
  nativeBuildInputs = [
    pkgs.clippy
    pkgs.rustfmt
    pkgs.rustPlatform.bindgenHook
  ];
  buildPhase = ''
    cargo fmt --all --check
    cargo clippy --locked --offline --workspace --all-targets -- -D warnings
    cargo test --locked --offline --workspace --lib --bins
  '';
  installPhase = "echo 'format, lints and unit tests' > $out";
  dontFixup = true;
  env = rocksdb;
}
