# What has to hold of the images, each as a derivation: built when something changed, and kept when nothing did.
{
  pkgs,
  packages,
  programs,
  # The images once more, built from derivations of other names.
  again,
}:
let
  images = [
    "controller"
    "init"
    "sample-app"
  ];
  each = script: builtins.concatStringsSep "\n" (map script images);
  # In bytes. Each node pulls them, the init image with each pod that waits for it.
  limits = {
    controller = 25 * 1024 * 1024;
    init = 2560 * 1024;
    sample-app = 5 * 1024 * 1024;
  };
  binaries = {
    controller = "/bin/kubernetes-vault";
    init = "/kubernetes-vault-init";
    sample-app = "/sample-app";
  };
in
{
  image-layout = pkgs.runCommandCC "image-layout" { nativeBuildInputs = [ pkgs.jq ]; } ''
    fail() { echo "image $image: $*" >&2; exit 1; }
    check() {
      image=$1 archive=$2 bytes=$3 program=$4
      mkdir -p $image/files
      tar -xf $archive -C $image
      [ "$(stat -c %s $archive)" -le "$bytes" ] || fail "larger than $bytes bytes: $(stat -c %s $archive)"
      for blob in $image/blobs/sha256/*; do
        [ "$(sha256sum "$blob" | cut -d' ' -f1)" = "$(basename "$blob")" ] || fail "$blob does not have its digest"
      done
      manifest=$(jq -r '.manifests[0].digest' $image/index.json)
      config=$(jq -r .config.digest "$image/blobs/''${manifest/://}")
      layer=$(jq -r '.layers[0].digest' "$image/blobs/''${manifest/://}")
      [ "$(jq -r '.rootfs.diff_ids[0]' "$image/blobs/''${config/://}")" = "$layer" ] || fail "another layer in its configuration"
      [ "$(jq -r '.[0].Config' $image/manifest.json)" = "blobs/''${config/://}" ] || fail "docker would see another configuration"
      [ "$(jq -r .config.User "$image/blobs/''${config/://}")" = 65532:65532 ] || fail "its user is no number, or root"
      if tar --numeric-owner -tvf "$image/blobs/''${layer/://}" | grep -v ' 0/0 .* 1970-01-01 00:00 '; then
        fail "files of another owner or time"
      fi
      if tar -tvf "$image/blobs/''${layer/://}" | grep -Ev '^(-r-xr-xr-x|drwxr-xr-x|drwxrwxrwt|lrwxrwxrwx) '; then
        fail "files that not every user may use"
      fi
      if grep -rqaF /nix/store/ $image; then fail "a path of the store in it"; fi
      tar -xpf "$image/blobs/''${layer/://}" -C $image/files
      readelf -lW $image/files$program > $image/headers
      readelf -dW $image/files$program > $image/dynamic
      if grep -q INTERP $image/headers || grep -q NEEDED $image/dynamic; then fail "$program is not static"; fi
      grep -q 'GNU_RELRO' $image/headers || fail "$program can change its own tables"
      readelf -hW $image/files$program | grep -q 'DYN (' || fail "$program is loaded at a fixed address"
      if readelf -SW $image/files$program | grep -q '\.symtab'; then fail "$program is not stripped"; fi
    }
    ${each (name: "check ${name} ${packages."image-${name}"} ${toString limits.${name}} ${binaries.${name}}")}
    [ "$(readlink controller/files/usr/local/bin/docker-entrypoint.sh)" = /bin/kubernetes-vault ]
    for folder in tmp var/lib/kubernetes-vault; do
      [ "$(stat -c %a controller/files/$folder)" = 1777 ]
    done
    [ -d controller/files/kubernetes-vault ]
    echo 'the images are what they should be' > $out
  '';

  image-test = import ./image-test.nix {
    inherit pkgs;
    images = map (name: {
      inherit name;
      archive = packages."image-${name}";
    }) images;
  };

  image-reproducible = pkgs.runCommand "image-reproducible" { } ''
    ${each (name: "cmp ${packages."image-${name}"} ${again.${name}}")}
    echo 'built twice: the same bytes' > $out
  '';

  # deploy/ holds what the command prints.
  manifests = pkgs.runCommand "manifests-check" { } ''
    cd ${
      import ./manifests.nix {
        inherit pkgs;
        inherit (programs) controller;
      }
    }
    find . -type f | while read -r file; do
      cmp "$file" "${
        builtins.path {
          name = "deploy";
          path = ../deploy;
        }
      }/$file"
    done
    echo 'deploy/ holds what the command prints' > $out
  '';

  workspace = programs.workspace-check;
}
