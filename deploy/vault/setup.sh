#!/bin/sh
# Sets up an empty Vault for deploy/quick-start and deploy/replicated, and prints what to do next. Needs the vault CLI, VAULT_ADDR, and a
# VAULT_TOKEN that may do all this (root, on a Vault for a trial). May be run again.
#
# VAULT_ADDR is what goes into the cluster too, unless POD_VAULT_ADDR says how pods reach this Vault.
set -eu
cd "$(dirname "$0")"

has() { # has auth approle/: whether an auth method or a secrets engine is mounted there
  vault "$1" list -format=json | grep -q "\"$2\""
}

# AppRole is how pods log in. A KV store for the sample's secret; a Vault in dev mode has it.
has auth approle/ || vault auth enable approle
has secrets secret/ || vault secrets enable -path=secret -version=2 kv
vault kv put secret/sample message="hello from Vault"

# The sample application: its policy, and an AppRole that hands it out.
#  secret_id_num_uses=1  a secret_id is good for one login, so that a stolen one is noticed
#  secret_id_ttl         one that was never used goes by itself: longer than vault.wrappingTTL, and not much longer
#  token_period          a token lives for 6 h, and for ever while the application renews it; where applications do not
#                        renew, use token_ttl and token_max_ttl
vault policy write sample-app sample-app.hcl
vault write auth/approle/role/sample-app \
  token_policies=sample-app secret_id_num_uses=1 secret_id_ttl=10m token_period=6h

# The controller: its policy, and a token role. With a period and without a maximum its token can be renewed for ever.
# orphan: it must not die with the token that made it.
vault policy write kubernetes-vault kubernetes-vault.hcl
vault write auth/token/roles/kubernetes-vault allowed_policies=kubernetes-vault period=6h orphan=true renewable=true

role_id=$(vault read -field=role_id auth/approle/role/sample-app/role-id)
cat <<EOF

Vault is ready. These commands make a token for the controller, and put what the quick start needs into the cluster:

  kubectl apply -f deploy/quick-start/namespace.yaml
  kubectl -n kubernetes-vault create secret generic kubernetes-vault \\
    --from-literal=addr=${POD_VAULT_ADDR:-$VAULT_ADDR} \\
    --from-literal=token="\$(vault token create -role=kubernetes-vault -policy=kubernetes-vault -field=token)"
  kubectl -n default create secret generic sample-app --from-literal=role-id=$role_id
  kubectl apply -k deploy/quick-start
  kubectl apply -k deploy/sample-app/token
EOF
