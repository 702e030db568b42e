# RocksDB's archive, a derivation of its own: it depends on the crate's source and on the recipe, and a change of ours
# compiles nothing of it.
{ pkgs }:
let
  lock = builtins.fromTOML (builtins.readFile ../Cargo.lock);
  crate = builtins.head (builtins.filter (package: package.name == "librocksdb-sys") lock.package);
  source = pkgs.fetchCrate {
    pname = crate.name;
    inherit (crate) version;
    # The file as the registry has it: its checksum is that of Cargo.lock.
    unpack = false;
    sha256 = crate.checksum;
  };
  recipe = builtins.path {
    name = "rocksdb-unity";
    path = ../scripts/rocksdb-unity;
  };
in
pkgs.runCommandCC "librocksdb-${crate.version}" { } ''
  mkdir source target $out
  tar -xzf ${source} --strip-components=1 -C source
  # What RocksDB writes into its log names its source files: without the path of the build.
  CXXFLAGS="-ffile-prefix-map=$PWD/source=/rocksdb" bash ${recipe} "$PWD/source" "$PWD/target"
  cp target/librocksdb.a $out
''
