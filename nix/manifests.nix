# The manifests that `kubernetes-vault manifests` prints, all documented cases. The one place that knows this command.
{
  pkgs,
  controller,
  # Name and archive of each image whose digest the manifests are to hold; none, and they hold tags, as deploy/ does.
  pinned ? { },
}:
let
  image =
    name: archive:
    ''--image "${name}=docker.io/${archive.repository}@$(sed -E 's/.*"manifest":"([^"]*)".*/\1/' ${archive.digests})"'';
in
pkgs.runCommand "manifests" { } ''
  ${controller}/bin/kubernetes-vault manifests --output-dir $out ${
    toString (builtins.attrValues (builtins.mapAttrs image pinned))
  }
''
