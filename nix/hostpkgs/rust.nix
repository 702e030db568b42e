# Rust as nixpkgs has it, over the machine's toolchain. The phases and their order are nixpkgs' own, and so are the
# folders: the source in /build/source, the crates in /build/cargo-vendor-dir.
{ runCommand }:
let
  # A file of the registry, known by the checksum in Cargo.lock. nix/ci.sh has cargo download it and puts it into the
  # store, where nothing is left to build.
  fetchCrate =
    {
      pname,
      version,
      sha256,
      unpack,
    }:
    assert !unpack;
    derivation {
      name = "${pname}-${version}.crate";
      # Of no system in particular, as it is never built.
      system = "builtin";
      builder = "/bin/false";
      outputHashMode = "flat";
      outputHashAlgo = "sha256";
      outputHash = sha256;
    };
  importCargoLock =
    { lockFile }:
    let
      crates = builtins.filter (package: package ? checksum) (builtins.fromTOML (builtins.readFile lockFile)).package;
      unpack = crate: ''
        tar -xzf ${
          fetchCrate {
            pname = crate.name;
            inherit (crate) version;
            sha256 = crate.checksum;
            unpack = false;
          }
        } -C $out
        printf '{"files":{},"package":"%s"}' ${crate.checksum} > $out/${crate.name}-${crate.version}/.cargo-checksum.json
      '';
    in
    runCommand "cargo-vendor-dir" {
      # Hundreds of lines: more than an environment variable holds.
      unpacking = builtins.concatStringsSep "" (map unpack crates);
      passAsFile = [ "unpacking" ];
    } ''
      mkdir -p $out
      source "$unpackingPath"
    '';
  buildRustPackage =
    target:
    {
      pname,
      version,
      src,
      cargoDeps,
      buildType ? "release",
      cargoBuildFlags ? [ ],
      postPatch ? "",
      preBuild ? "",
      buildPhase ? ''
        cargo build -j "$NIX_BUILD_CORES" --target ${target} --offline --profile ${buildType} ${toString cargoBuildFlags}
      '',
      installPhase ? ''
        mkdir -p $out/bin
        find target/${target}/${buildType} -maxdepth 1 -type f -perm -0100 -exec cp -t $out/bin {} +
      '',
      doCheck,
      auditable,
      dontFixup ? false,
      stripAllList ? [ ],
      nativeBuildInputs ? [ ],
      buildInputs ? [ ],
      env ? { },
      passthru ? { },
      meta ? { },
    }:
    assert !doCheck && !auditable;
    runCommand "${pname}-${version}" (env // { inherit src passthru meta; }) ''
      cp -r --preserve=timestamps $src source
      chmod -R u+w source
      # Links, as nixpkgs has them: the paths that the compiler sees are the same for every store.
      ln -s ${cargoDeps} cargo-vendor-dir
      mkdir cargo
      export CARGO_HOME=/build/cargo CARGO_INCREMENTAL=0
      cat > cargo/config.toml <<TOML
      [source.crates-io]
      replace-with = "vendored-sources"
      [source.vendored-sources]
      directory = "/build/cargo-vendor-dir"
      [target.aarch64-unknown-linux-musl]
      linker = "aarch64-linux-gnu-gcc"
      TOML
      export CC_x86_64_unknown_linux_musl=musl-gcc CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc
      cd source
      ${postPatch}
      ${preBuild}
      ${buildPhase}
      ${installPhase}
      ${
        if dontFixup then
          ""
        else
          builtins.concatStringsSep "\n" (map (folder: "find $out/${folder} -type f -exec strip -s {} +") stripAllList)
      }
    '';
in
{
  inherit fetchCrate;
  platform = target: {
    inherit importCargoLock;
    buildRustPackage = buildRustPackage target;
    # Debian's libclang is found by itself.
    bindgenHook = "/usr";
  };
}
