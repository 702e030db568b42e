# What the sample application may do with its token: read one secret of the KV store (version 2) at secret/.
path "secret/data/sample" {
  capabilities = ["read"]
}
