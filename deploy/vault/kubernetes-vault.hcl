# The controller's policy. The policy `default` is needed beside it (tokens get it unless told otherwise): it lets a
# token look itself up, renew itself, and ask for its own capabilities.

# Ask for secret_ids of this AppRole. One such block for each AppRole that pods may have: this list is what keeps a pod
# from getting any other role, for its annotation alone decides which one is asked for.
path "auth/approle/role/sample-app/secret-id" {
  capabilities = ["update"]

  # Wrapped only: Vault refuses what would bring a bare secret_id onto the network, whatever went wrong on our side.
  # The longest TTL must not be below vault.wrappingTTL.
  min_wrapping_ttl = "1s"
  max_wrapping_ttl = "5m"
}

# Destroy a secret_id that was refused or never sent. Without this the controller unwraps such a one and drops it,
# where it still can, or leaves it to its wrapping TTL.
path "auth/approle/role/sample-app/secret-id-accessor/destroy" {
  capabilities = ["update"]
}

# Read the token role that the controller's own token comes from, to see that it can be renewed without an end. Not
# needed with vault.skipTokenRoleNameValidation, vault.tokenFile or vault.kubernetesAuth.
path "auth/token/roles/kubernetes-vault" {
  capabilities = ["read"]
}
