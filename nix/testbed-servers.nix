# The servers that the testbed starts, where nixpkgs has the versions that it asks for: it takes them from PATH. Vault is
# not among them: nixpkgs has a later one under another licence, and the testbed builds its own from a Go module.
{ pkgs }:
let
  of = package: name: {
    inherit name;
    path = "${package}/bin/${name}";
  };
in
pkgs.linkFarm "testbed-servers" (
  [
    (of pkgs.etcd "etcd")
    (of pkgs.kubectl "kubectl")
  ]
  ++ map (of pkgs.kubernetes) [
    "kube-apiserver"
    "kube-controller-manager"
    "kube-scheduler"
  ]
)
