# What nix/ needs of nixpkgs, on a machine that cannot reach nixpkgs: the same functions with the same arguments, over
# the tools that nix/ci.sh lets into the sandbox. It is a test double: it proves our Nix code and our images, and
# nothing about nixpkgs' own compilers. An attribute that nix/ uses and that is missing here fails the evaluation.
{ system }:
let
  cpu = builtins.head (builtins.split "-" system);
  # nix/ci.sh writes it: the versions of the tools. They are part of each derivation, so that another compiler builds
  # everything anew.
  machine =
    if builtins.pathExists ./machine.json then
      builtins.fromJSON (builtins.readFile ./machine.json)
    else
      { tools = "unknown: only nix/ci.sh can build with the stand-in"; };

  build = import ./build.nix { inherit system machine; };
  rust = import ./rust.nix { inherit (build) runCommand; };
  # A tool of the machine, where nixpkgs has a package of this name.
  tool = name: {
    inherit name;
    outPath = "/usr";
  };
  platform = cpu: environment: {
    stdenv.hostPlatform = {
      system = "${cpu}-linux";
      isx86_64 = cpu == "x86_64";
      go.GOARCH = if cpu == "x86_64" then "amd64" else "arm64";
    };
    rustPlatform = rust.platform "${cpu}-unknown-linux-${environment}";
  };
in
{
  inherit (build)
    runCommand
    runCommandCC
    writeText
    writeShellApplication
    linkFarm
    mkShell
    ;
  inherit (rust) fetchCrate;
  inherit (platform cpu "gnu") stdenv rustPlatform;
  pkgsStatic = platform cpu "musl";
  pkgsCross.aarch64-multiplatform-musl.pkgsStatic = platform "aarch64" "musl";
  # Debian keeps the static archives beside the shared ones.
  glibc.static = tool "glibc-static";
}
// builtins.listToAttrs (
  map (name: {
    inherit name;
    value = tool name;
  }) (import ./tools.nix)
)
