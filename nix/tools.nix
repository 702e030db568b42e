# Packages for shells and scripts, by what they are for.
pkgs: rec {
  rust = [
    pkgs.cargo
    pkgs.clippy
    pkgs.rustc
    pkgs.rustfmt
  ];
  testbed = [
    pkgs.etcd
    pkgs.go
    pkgs.iproute2
    pkgs.kubectl
    pkgs.kubernetes
    pkgs.nftables
    pkgs.util-linux
  ];
  kind =
    rust
    ++ testbed
    ++ [
      pkgs.docker-client
      pkgs.gnumake
      pkgs.jq
      pkgs.kind
      pkgs.rustPlatform.bindgenHook
      pkgs.skopeo
    ];
}
