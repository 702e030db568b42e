# Packages that nix/ only names, for a shell or for the PATH of a script.
[
  "cargo"
  "clippy"
  "rustc"
  "rustfmt"
]
