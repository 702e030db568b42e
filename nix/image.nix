# What each image holds. Paths and user are those that existing manifests rely on.
{
  pkgs,
  tag,
  architecture,
}:
let
  image =
    name: rest:
    import ./oci-image.nix (
      {
        inherit
          pkgs
          name
          tag
          architecture
          ;
      }
      // rest
    );
  path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
in
{
  # `docker-entrypoint.sh` is a link: the binary knows by that name what the script of this name did. Data and
  # temporary files may be written by whatever user id the cluster picks.
  controller =
    binary:
    image "controller" {
      layer = ''
        install -D -m 0555 ${binary}/bin/kubernetes-vault layer/bin/kubernetes-vault
        install -d -m 0755 layer/kubernetes-vault layer/usr layer/usr/local layer/usr/local/bin layer/var layer/var/lib
        install -d -m 1777 layer/tmp layer/var/lib/kubernetes-vault
        ln -s /bin/kubernetes-vault layer/usr/local/bin/docker-entrypoint.sh
      '';
      config = {
        Env = [ "PATH=${path}" ];
        Entrypoint = [ "docker-entrypoint.sh" ];
        Cmd = [ "kubernetes-vault" ];
      };
    };
  init =
    binary:
    image "init" {
      layer = "install -D -m 0555 ${binary}/bin/kubernetes-vault-init layer/kubernetes-vault-init";
      config.Entrypoint = [ "/kubernetes-vault-init" ];
    };
  sample-app =
    binary:
    image "sample-app" {
      layer = "install -D -m 0555 ${binary}/bin/sample-app layer/sample-app";
      config.Entrypoint = [ "/sample-app" ];
    };
}
