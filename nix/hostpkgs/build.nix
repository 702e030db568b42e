# Derivations over the machine's own tools, with the names and arguments that nixpkgs has for them.
{ system, machine }:
let
  # What nixpkgs takes for itself and hands on to no builder.
  notEnvironment = [
    "passthru"
    "meta"
    "nativeBuildInputs"
    "buildInputs"
  ];
  runCommand =
    name: environment: script:
    let
      passthru = environment.passthru or { };
    in
    derivation (
      removeAttrs environment notEnvironment
      // {
        inherit name system script;
        inherit (machine) tools;
        builder = "/bin/bash";
        args = [
          "-euc"
          ''
            set -o pipefail
            shopt -s nullglob
            export PATH=/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/build/home
            export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=1
            umask 0022
            mkdir -p "$HOME"
            cd /build
            eval "$script"
          ''
        ];
      }
    )
    // {
      inherit passthru;
      meta = environment.meta or { };
    }
    // passthru;
in
{
  inherit runCommand;
  runCommandCC = runCommand;
  writeText =
    name: text:
    runCommand name {
      inherit text;
      passAsFile = [ "text" ];
    } ''cp "$textPath" $out'';
  linkFarm =
    name: entries:
    runCommand name { } ''
      mkdir -p $out
      ${builtins.concatStringsSep "\n" (map (entry: "ln -s ${entry.path} $out/${entry.name}") entries)}
    '';
  writeShellApplication =
    {
      name,
      runtimeInputs ? [ ],
      text,
      meta ? { },
    }:
    runCommand name
      {
        inherit text meta;
        passAsFile = [ "text" ];
      }
      ''
        mkdir -p $out/bin
        { printf '#!/bin/bash\nset -o errexit -o nounset -o pipefail\n\n'; cat "$textPath"; } > $out/bin/${name}
        chmod 0555 $out/bin/${name}
        bash -n $out/bin/${name}
      '';
  mkShell = { packages ? [ ], ... }: runCommand "nix-shell" { } "touch $out";
}
