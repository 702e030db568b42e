# The workspace as Cargo.toml describes it, and stand-ins for those of its crates that a build does not see.
#
# Cargo reads the manifests of all members before it compiles one of them, and wants a source file for each.
let
  manifest = builtins.fromTOML (builtins.readFile ../Cargo.toml);
  members = map (path: {
    inherit path;
    manifest = builtins.fromTOML (builtins.readFile (../. + "/${path}/Cargo.toml"));
  }) manifest.workspace.members;
  # Compiled as they are, like any other dependency: a crate of the registry is built on top of them.
  patches = map (patch: patch.path) (builtins.attrValues manifest.patch.crates-io);
  ours = builtins.filter (member: !builtins.elem member.path patches) members;

  # Targets whose source cargo looks for by their name.
  implied =
    member: kind: folder:
    map (target: "${member.path}/${folder}/${target.name}.rs") (
      builtins.filter (target: !(target ? path)) (member.manifest.${kind} or [ ])
    );
  standIn = member: ''
    if [ ! -e ${member.path}/src ]; then
      mkdir -p ${member.path}/src
      : > ${member.path}/src/lib.rs
      echo 'fn main() {}' > ${member.path}/src/main.rs
    fi
    for target in ${toString (implied member "test" "tests" ++ implied member "bench" "benches")}; do
      mkdir -p "$(dirname "$target")"
      echo 'fn main() {}' > "$target"
    done
  '';
in
{
  inherit (manifest.workspace.package) version license;
  # What the dependencies are compiled from. The other sources come on top.
  manifests = [
    "Cargo.toml"
    "Cargo.lock"
  ]
  ++ map (member: if member.path == "." then "Cargo.toml" else "${member.path}/Cargo.toml") ours
  ++ patches;
  packages = map (member: member.manifest.package.name) ours;
  standIns = builtins.concatStringsSep "" (map standIn ours);
}
