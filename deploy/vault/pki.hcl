# What the controller's policy has beside kubernetes-vault.hcl where Vault issues its certificates (deploy/production).

# A certificate for the metrics page. The role allows the service's name and the pods' names, and no client certificate.
path "pki/issue/kubernetes-vault-metrics" {
  capabilities = ["update"]
}

# A certificate by which replicas know each other. The role allows their URI alone, so that nothing else that may issue
# certificates from this mount can pass for a replica.
path "pki/issue/kubernetes-vault-peer" {
  capabilities = ["update"]
}
