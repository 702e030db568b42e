# What the programs are made of, as CycloneDX: from Cargo.lock alone, so that anybody gets the same file. It lists every
# crate of the workspace's lock file, those of the tests too: which of them a program links is cargo's to say.
{ pkgs }:
let
  inherit (import ./workspace.nix) version license;
  lock = builtins.fromTOML (builtins.readFile ../Cargo.lock);
  isOurs = package: !(package ? source);
  reference = package: "pkg:cargo/${package.name}@${package.version}";
  component =
    package:
    {
      type = "library";
      bom-ref = reference package;
      inherit (package) name version;
      purl = reference package;
      scope = "required";
    }
    // (
      if isOurs package then
        { licenses = [ { license.id = license; } ]; }
      else
        {
          hashes = [
            {
              alg = "SHA-256";
              content = package.checksum;
            }
          ];
        }
    );
  # A dependency is a name, with its version where the lock file has two of that name.
  resolve =
    dependency:
    let
      parts = builtins.filter builtins.isString (builtins.split " " dependency);
      name = builtins.head parts;
      candidates = builtins.filter (
        package: package.name == name && (builtins.length parts < 2 || package.version == builtins.elemAt parts 1)
      ) (byName.${name});
    in
    reference (builtins.head candidates);
  byName = builtins.groupBy (package: package.name) lock.package;
in
pkgs.writeText "kubernetes-vault-${version}.cdx.json" (
  builtins.toJSON {
    bomFormat = "CycloneDX";
    specVersion = "1.5";
    version = 1;
    metadata.component = {
      type = "application";
      bom-ref = "kubernetes-vault";
      name = "kubernetes-vault";
      inherit version;
      licenses = [ { license.id = license; } ];
    };
    components = map component lock.package;
    dependencies = [
      {
        ref = "kubernetes-vault";
        dependsOn = map resolve [
          "kubernetes-vault"
          "kubernetes-vault-init"
          "sample-app"
        ];
      }
    ]
    ++ map (package: {
      ref = reference package;
      dependsOn = map resolve (package.dependencies or [ ]);
    }) lock.package;
  }
)
