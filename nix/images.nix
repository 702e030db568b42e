# The images of this architecture side by side, and what their digests are.
{ pkgs, images }:
let
  names = builtins.attrNames images;
  each = separator: text: builtins.concatStringsSep separator (map text names);
in
pkgs.runCommand "images" { } ''
  mkdir -p $out
  ${each "\n" (name: "ln -s ${images.${name}} $out/${name}.tar")}
  {
    printf '{'
    ${each "\nprintf ','\n" (name: ''printf '"${name}":'; cat ${images.${name}.digests}'')}
    printf '}\n'
  } > $out/digests.json
''
