#!/usr/bin/env bash
# Leaves the images as files: nix/images.sh FOLDER. They are those of nix/ci.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=nix/setup.sh
. nix/setup.sh

folder=$1
set_up
nix_ build --print-build-logs --no-link "$FLAKE#images"
images=$(nix_ eval --raw "$FLAKE#images")
touch "$HERE/built"
mkdir -p "$folder"
# Copies: what is in the store may be collected as garbage. Only what changed, so that others see no newer file.
for file in "$images"/*; do
    cmp -s "$file" "$folder/${file##*/}" || install -m 0644 "$file" "$folder/${file##*/}"
done
