# What a build sees of this repository: a list of paths that are allowed. A change of documents, tests or CI gives no
# other image, and no other derivation.
{
  paths,
  # Unit tests lie beside the code. No program needs them.
  withTests ? false,
}:
let
  root = toString ../.;
  begins = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
  allowed =
    relative: type: path:
    relative == path || begins (path + "/") relative || (type == "directory" && begins (relative + "/") path);
  isTest =
    path:
    !withTests
    && builtins.elem (baseNameOf path) [
      "tests"
      "tests.rs"
    ];
in
builtins.path {
  # The name of the folder that a build works in, and so part of the paths that rust.nix maps away.
  name = "source";
  path = ../.;
  filter =
    path: type:
    let
      relative = builtins.substring (builtins.stringLength root + 1) (-1) path;
    in
    builtins.elem relative paths
    || (builtins.any (allowed relative type) paths && !(isTest path && !builtins.any (begins (relative + "/")) paths));
}
