# The C++ runtime as an archive, in a folder without the shared one. The crate librocksdb-sys asks for "the" library, and
# a linker that finds both takes the shared one, even for a program that has no loader.
{ pkgs }:
pkgs.runCommandCC "static-cxx" { } ''
  mkdir $out
  cp "$(''${CXX:-g++} -print-file-name=libstdc++.a)" $out
''
