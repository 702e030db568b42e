# A program of the workspace, in two derivations: its compiled dependencies, and our own crates on top of them. A change
# of our source compiles our own crates alone.
{
  # With whose compiler and for which platform.
  rustPlatform,
  # The crates of Cargo.lock.
  cargoDeps,
  package,
  # Another name gives another derivation of the same content: checks.nix builds everything a second time by it.
  name ? package,
  profile,
  # Our crates that it is made of.
  crates,
  rustflags ? [ ],
  nativeBuildInputs ? [ ],
  buildInputs ? [ ],
  env ? { },
}:
let
  workspace = import ./workspace.nix;
  source = paths: import ./source.nix { paths = workspace.manifests ++ paths; };
  common = {
    inherit (workspace) version;
    inherit cargoDeps nativeBuildInputs buildInputs;
    buildType = profile;
    cargoBuildFlags = [
      "--locked"
      "--package"
      package
    ];
    postPatch = workspace.standIns;
    doCheck = false;
    # The dependencies are listed in the SBOM, which is an output of its own.
    auditable = false;
    env = env // {
      # The flag of .cargo/config.toml: what was tested is what is deployed. The paths of the build stay out of the binary.
      RUSTFLAGS = toString (
        [
          "--cfg tokio_unstable"
          "--remap-path-prefix=/build/source=/source"
          "--remap-path-prefix=/build/cargo-vendor-dir=/vendor"
        ]
        ++ rustflags
      );
    };
  };
  dependencies = rustPlatform.buildRustPackage (
    common
    // {
      pname = "${name}-dependencies";
      src = source [ ];
      # The stand-ins must not be taken for our crates: cargo compares times, and in the store there is but one.
      installPhase = ''
        for package in ${toString workspace.packages}; do
          rm -rf target/*/${profile}/.fingerprint/$package-*
        done
        mkdir -p $out
        cp -r --preserve=timestamps target $out/target
      '';
      dontFixup = true;
    }
  );
in
rustPlatform.buildRustPackage (
  common
  // {
    pname = name;
    src = source crates;
    # With their times, by which cargo tells what is up to date.
    preBuild = ''
      cp -r --preserve=timestamps ${dependencies}/target target
      chmod -R u+w target
    '';
    # Each node pulls every byte of it.
    stripAllList = [ "bin" ];
    passthru = { inherit dependencies; };
    meta.mainProgram = package;
  }
)
