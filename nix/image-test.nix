# Runs the programs of the three images in roots that hold nothing else: see image-test/main.rs.
{ pkgs, images }:
let
  kubeconfig = builtins.toJSON {
    apiVersion = "v1";
    kind = "Config";
    current-context = "none";
    contexts = [
      {
        name = "none";
        context = {
          cluster = "none";
          user = "none";
        };
      }
    ];
    clusters = [
      {
        name = "none";
        # Nobody listens there: the test is about Vault's names.
        cluster.server = "http://127.0.0.1:1";
      }
    ];
    users = [
      {
        name = "none";
        user = { };
      }
    ];
  };
  configuration =
    name:
    builtins.toJSON {
      vault = {
        addr = "http://${name}:8200";
        token = "s.aaaaaaaaaaaaaaaaaaaaaaaa";
      };
      kubernetes = {
        watchNamespace = "default";
        serviceNamespace = "default";
        service = "kubernetes-vault";
      };
    };
  write = name: text: "printf '%s\\n' '${text}' > roots/controller/${name}";
in
pkgs.runCommandCC "image-test"
  {
    nativeBuildInputs = [
      pkgs.iproute2
      pkgs.rustc
      pkgs.util-linux
    ];
    inside = ''
      ip link set lo up
      # Memory, so that it can be made read-only here, whatever the mount below was locked to.
      mount -t tmpfs none "$PWD/roots"
      ${builtins.concatStringsSep "\n" (map (image: ''
        mkdir -p roots/${image.name} image
        tar -xf ${image.archive} -C image
        # The one layer of it: the largest of its blobs.
        tar -xf "$(ls -S image/blobs/sha256/* | head -n 1)" -C roots/${image.name}
        rm -rf image
      '') images)}
      mkdir -p roots/controller/etc
      echo '127.0.0.2 vault.hosts.test' > roots/controller/etc/hosts
      echo 'nameserver 127.0.0.1' > roots/controller/etc/resolv.conf
      ${write "kubeconfig.yml" kubeconfig}
      ${write "vault.hosts.test.yml" (configuration "vault.hosts.test")}
      ${write "vault.dns.test.yml" (configuration "vault.dns.test")}
      mount -o remount,bind,ro "$PWD/roots"
      if touch roots/controller/tmp/writable 2>/dev/null; then
        echo 'the roots can be written to: this test would prove nothing' >&2
        exit 1
      fi
      ./image-test "$PWD/roots"
    '';
  }
  ''
    rustc --edition 2024 -D warnings -o image-test ${
      builtins.path {
        name = "image-test.rs";
        path = ./image-test/main.rs;
      }
    }
    mkdir roots
    unshare --user --map-root-user --mount --net bash -euo pipefail -c "$inside"
    echo 'the programs run in an empty, read-only root, as any user, and resolve names' > $out
  ''
