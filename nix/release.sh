#!/usr/bin/env bash
# Makes a release out of a clean tree: nix/release.sh FOLDER
#
# With KV_NIXPKGS=pinned the compilers are those of flake.lock's nixpkgs, and anybody with Nix gets the same digests;
# that takes a network. Without it they are this machine's: docs/verify.md says what that is worth.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=nix/setup.sh
. nix/setup.sh

folder=$1
ARCHIVES=(image-controller image-init image-sample-app index-controller index-init index-sample-app)

[[ -z $(git status --porcelain) ]] ||
    die "the tree has changes that are in no commit, and a release says which commit it is: commit or stash them"
commit=$(git rev-parse HEAD)

if [[ ${KV_NIXPKGS:-} == pinned ]]; then
    command -v nix >/dev/null || die "missing: nix (2.24 or later for the pinned nixpkgs): see https://nixos.org/download"
    toolchain="nixpkgs $(jq -r .nodes.nixpkgs.locked.rev flake.lock)"
    FLAKE="git+file://$PWD?rev=$commit"
    build() { nix --extra-experimental-features 'nix-command flakes' build --no-link --json "$@"; }
else
    set_up
    toolchain=$(tool_versions)
    build() { nix_ build --print-build-logs --no-link --json "$@"; }
fi

path_of() { build "$FLAKE#$1" | jq -r '.[0].outputs.out'; }

rm -rf "$folder"
mkdir -p "$folder"
for name in "${ARCHIVES[@]}"; do
    path=$(path_of "$name")
    install -m 0644 "$path" "$folder/${path#*-}"
done
install -m 0644 "$(path_of images)/digests.json" "$folder/digests.json"
path=$(path_of sbom)
install -m 0644 "$path" "$folder/${path#*-}"
# Of the same bytes for everybody, as the images are.
tar --format=ustar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner -C "$(path_of manifests)" -cf "$folder/manifests.tar" .
printf 'commit %s\n%s\n' "$commit" "$toolchain" >"$folder/BUILT-WITH"
(cd "$folder" && sha256sum -- * >SHA256SUMS)
echo "a release of $commit in $folder:"
cat "$folder/SHA256SUMS"
