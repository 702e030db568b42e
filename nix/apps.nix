# What `nix run` offers.
{
  pkgs,
  packages,
  programs,
}:
let
  app = name: description: runtimeInputs: text: {
    type = "app";
    program = "${pkgs.writeShellApplication { inherit name runtimeInputs text; }}/bin/${name}";
    meta = { inherit description; };
  };
in
{
  default = app "kubernetes-vault" "the controller" [ ] ''
    exec ${packages.controller}/bin/kubernetes-vault "$@"
  '';
  # Vault is built from its Go module by the testbed, once a machine: its licence keeps later versions out of nixpkgs'
  # cache, and the testbed asks for this one.
  demo = app "demo" "the main job on a real control plane and a real Vault" ((import ./tools.nix pkgs).testbed) ''
    export KV_CONTROLLER_BIN=${packages.controller}/bin/kubernetes-vault
    export KV_INIT_BIN=${packages.init}/bin/kubernetes-vault-init
    export KV_SAMPLE_BIN=${packages.sample-app}/bin/sample-app
    exec ${programs.demo}/bin/demo "$@"
  '';
  e2e = app "e2e" "the end-to-end suite on a kind cluster, from a checkout" ((import ./tools.nix pkgs).kind) ''
    if [[ ! -e Makefile || ! -d tests/e2e ]]; then
      echo 'e2e runs from a checkout of kubernetes-vault: change into one, and try again' >&2
      exit 1
    fi
    exec make e2e-kind
  '';
}
