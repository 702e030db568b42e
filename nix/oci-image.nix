# An image of one layer, as an archive that `docker load`, `kind load image-archive`, `skopeo copy oci-archive:` and
# `ctr images import` all take: an OCI layout, and docker's manifest.json beside it.
#
# Nothing in it depends on the clock, on the user, on the order of files in a folder or on a compressor's version. The
# second output, `digests`, tells what the archive holds.
{
  pkgs,
  name,
  tag,
  architecture,
  # Shell lines that fill the folder `layer`.
  layer,
  config,
}:
let
  created = "1970-01-01T00:00:01Z";
  repository = "kubernetes-vault/${name}";
  # Labels tell the version and nothing that changes with each commit: the same source gives the same image.
  imageConfig = builtins.toJSON {
    inherit architecture created;
    config = config // {
      User = "65532:65532";
      Labels = {
        "org.opencontainers.image.title" = repository;
        "org.opencontainers.image.version" = tag;
        "org.opencontainers.image.licenses" = (import ./workspace.nix).license;
      };
    };
    os = "linux";
    rootfs = {
      type = "layers";
      diff_ids = [ "sha256:@layer@" ];
    };
    history = [
      {
        inherit created;
        created_by = "nix/oci-image.nix";
      }
    ];
  };
  descriptor = type: blob: {
    mediaType = "application/vnd.oci.image.${type}";
    digest = "sha256:@${blob}@";
    # A number in the end: see `fill`.
    size = "@${blob}Size@";
  };
  manifest = builtins.toJSON {
    schemaVersion = 2;
    mediaType = "application/vnd.oci.image.manifest.v1+json";
    config = descriptor "config.v1+json" "config";
    # Uncompressed: the digest depends on no compressor, and registries compress by themselves on the way.
    layers = [ (descriptor "layer.v1.tar" "layer") ];
  };
  index = builtins.toJSON {
    schemaVersion = 2;
    mediaType = "application/vnd.oci.image.index.v1+json";
    manifests = [
      (
        descriptor "manifest.v1+json" "manifest"
        // {
          platform = {
            inherit architecture;
            os = "linux";
          };
          annotations = {
            "org.opencontainers.image.ref.name" = tag;
            "io.containerd.image.name" = "docker.io/${repository}:${tag}";
          };
        }
      )
    ];
  };
  dockerManifest = builtins.toJSON [
    {
      Config = "blobs/sha256/@config@";
      RepoTags = [ "${repository}:${tag}" ];
      Layers = [ "blobs/sha256/@layer@" ];
    }
  ];
  digests = builtins.toJSON {
    manifest = "sha256:@manifest@";
    config = "sha256:@config@";
    size = "@total@";
  };
in
pkgs.runCommand "image-${name}-${tag}.tar"
  {
    inherit
      imageConfig
      manifest
      index
      dockerManifest
      ;
    digestsOf = digests;
    passAsFile = [
      "imageConfig"
      "manifest"
      "index"
      "dockerManifest"
      "digestsOf"
    ];
    outputs = [
      "out"
      "digests"
    ];
    passthru = {
      inherit architecture repository tag;
    };
  }
  ''
    archive() {
      tar --format=ustar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner --no-acls --no-selinux --no-xattrs "$@"
    }
    filled=()
    # Moves a file among the blobs. From then on `fill` puts its digest for @NAME@ and its size for "@NAMESize@".
    blob() {
      local digest size
      digest=$(sha256sum "$2" | cut -d' ' -f1)
      size=$(stat -c %s "$2")
      filled+=(-e "s/@$1@/$digest/g" -e "s/\"@$1Size@\"/$size/g")
      total=$((total + size))
      mv "$2" "oci/blobs/sha256/$digest"
    }
    fill() { sed "''${filled[@]}" "$1"; }
    total=0

    mkdir -p layer oci/blobs/sha256
    ${layer}
    archive -C layer -cf layer.tar $(ls layer)
    blob layer layer.tar
    fill "$imageConfigPath" > config.json
    blob config config.json
    fill "$manifestPath" > manifest.json
    blob manifest manifest.json

    filled+=(-e "s/\"@total@\"/$total/")
    fill "$indexPath" > oci/index.json
    fill "$dockerManifestPath" > oci/manifest.json
    fill "$digestsOfPath" > $digests
    printf '%s' '{"imageLayoutVersion":"1.0.0"}' > oci/oci-layout
    find oci -type f -exec chmod 0444 {} +
    archive -C oci -cf $out blobs index.json manifest.json oci-layout
  ''
