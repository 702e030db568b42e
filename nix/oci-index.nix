# One image for several architectures: an OCI layout whose index names an image for each.
#
# `skopeo copy --all oci-archive:FILE docker://REGISTRY/NAME:TAG` pushes it, and each node pulls its own part.
{
  pkgs,
  # The archives of oci-image.nix, one for each architecture.
  images,
}:
let
  inherit (builtins.head images) repository tag;
  part = image: builtins.toJSON {
    mediaType = "application/vnd.oci.image.manifest.v1+json";
    digest = "@manifest@";
    size = "@size@";
    platform = {
      inherit (image) architecture;
      os = "linux";
    };
  };
  list = builtins.toJSON {
    schemaVersion = 2;
    mediaType = "application/vnd.oci.image.index.v1+json";
    manifests = "@parts@";
  };
  top = builtins.toJSON {
    schemaVersion = 2;
    mediaType = "application/vnd.oci.image.index.v1+json";
    manifests = [
      {
        mediaType = "application/vnd.oci.image.index.v1+json";
        digest = "sha256:@list@";
        size = "@size@";
        annotations = {
          "org.opencontainers.image.ref.name" = tag;
          "io.containerd.image.name" = "docker.io/${repository}:${tag}";
        };
      }
    ];
  };
in
pkgs.runCommand "index-${baseNameOf repository}-${tag}.tar"
  {
    inherit list top;
    outputs = [
      "out"
      "digest"
    ];
  }
  ''
    mkdir -p oci
    parts=
    ${builtins.concatStringsSep "\n" (map (image: ''
      tar -xf ${image} -C oci
      chmod -R u+w oci
      manifest=$(sed -E 's/.*"manifest":"([^"]*)".*/\1/' ${image.digests})
      size=$(stat -c %s "oci/blobs/''${manifest/://}")
      part=$(sed -e "s/@manifest@/$manifest/" -e "s/\"@size@\"/$size/" <<< '${part image}')
      parts=''${parts:+$parts,}$part
    '') images)}
    printf '%s' "''${list/\"@parts@\"/[$parts]}" > list.json
    list=$(sha256sum list.json | cut -d' ' -f1)
    size=$(stat -c %s list.json)
    mv list.json "oci/blobs/sha256/$list"
    printf '%s' "sha256:$list" > $digest
    sed -e "s/@list@/$list/" -e "s/\"@size@\"/$size/" <<< "$top" > oci/index.json
    # Docker's own list knows one architecture.
    rm oci/manifest.json
    find oci -type f -exec chmod 0444 {} +
    tar --format=ustar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner -C oci -cf $out blobs index.json oci-layout
  ''
