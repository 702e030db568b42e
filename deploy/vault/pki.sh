#!/bin/sh
# Sets up Vault's PKI for deploy/production, after setup.sh: a CA for the metrics page, for replicas and for Prometheus.
# Needs the vault CLI, VAULT_ADDR, and a VAULT_TOKEN that may do all this. May be run again; after setup.sh it has to be,
# since that writes the controller's policy without what is added here.
#
# NAMESPACE is where the controller runs. Vault's own certificate may be from this CA, or from any other.
set -eu
cd "$(dirname "$0")"
namespace=${NAMESPACE:-kubernetes-vault}

# The CA, for ten years. Its key never leaves Vault. One that is there already is kept.
if ! vault secrets list -format=json | grep -q '"pki/"'; then
  vault secrets enable pki
  vault secrets tune -max-lease-ttl=87600h pki
  vault write pki/root/generate/internal common_name="kubernetes-vault" ttl=87600h > /dev/null
fi

# A role for each purpose. Whoever may issue by one of them must not be able to stand for another.
# The metrics page: the service's name and the pods' names.
#  client_flag=false  it shows no one anything, so its certificate opens no other metrics page
#  max_ttl=24h        the controller has it issued anew by itself, at half of its life
vault write pki/roles/kubernetes-vault-metrics allow_bare_domains=true allow_glob_domains=true \
  allowed_domains='kubernetes-vault,kubernetes-vault-*' client_flag=false max_ttl=24h
# Replicas: the URI by which they know each other, and no other name.
#  max_ttl=72h  so long may Vault be sealed before replicas lose each other
vault write pki/roles/kubernetes-vault-peer require_cn=false max_ttl=72h \
  allowed_uri_sans="kubernetes-vault://$namespace/kubernetes-vault/peer"
# Prometheus: only who has such a certificate may read metrics.
#  server_flag=false  it is for a client alone
vault write pki/roles/prometheus allow_bare_domains=true allowed_domains=prometheus server_flag=false max_ttl=24h

# The controller's policy, and the two paths above beside it. Its token has it from now on; nothing is restarted.
cat kubernetes-vault.hcl pki.hcl | vault policy write kubernetes-vault -

apply="kubectl apply -k deploy/production"
if [ "$namespace" != kubernetes-vault ]; then
  apply="kubernetes-vault manifests production --namespace=$namespace | kubectl apply --server-side -f -"
fi
cat <<EOF

Vault's PKI is ready. In the cluster, with the CA that signed Vault's own certificate in vault-ca.crt:

  kubectl create namespace $namespace
  kubectl -n $namespace create secret generic kubernetes-vault \\
    --from-literal=addr=${POD_VAULT_ADDR:-$VAULT_ADDR} \\
    --from-literal=token="\$(vault token create -role=kubernetes-vault -policy=kubernetes-vault -field=token)"
  kubectl -n $namespace create secret generic kubernetes-vault-tls --from-file=vault-ca.crt
  $apply
EOF
