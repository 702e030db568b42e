# The least that the controller needs: what an installation of the Go version has. Use kubernetes-vault.hcl unless you
# must not grant more.

# Ask for secret_ids of this AppRole. One such block for each AppRole that pods may have: this list is what keeps a pod
# from getting any other role, for its annotation alone decides which one is asked for.
path "auth/approle/role/sample-app/secret-id" {
  capabilities = ["update"]
}

# Read the token role that the controller's own token comes from, to see that it can be renewed without an end. Not
# needed with vault.skipTokenRoleNameValidation, vault.tokenFile or vault.kubernetesAuth.
path "auth/token/roles/kubernetes-vault" {
  capabilities = ["read"]
}
