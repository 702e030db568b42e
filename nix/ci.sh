#!/usr/bin/env bash
# The offline proof: the flake evaluates, and the images come out the same, whoever builds them, where and when.
#
#   nix/ci.sh                 our own crates and the images are built twice
#   nix/ci.sh --everything    their dependencies and RocksDB too, which takes as long as a cold run
#
# What was proven once for the same derivations is not built again.
set -euo pipefail
cd "$(dirname "$0")/.."
. nix/setup.sh

# Whatever a day decides on (a date in a file, a certificate that is over) shows at this distance.
ANOTHER_DAY="+400d"
CHECKS=(image-layout image-test)
TWICE=(controller init sample-app aarch64-init aarch64-sample-app image-controller image-init image-sample-app)

step() { printf '%s  nix: %s\n' "$(date +%T)" "$*"; }

# Nix on 64-bit ARM builds nothing for x86_64.
only_here() {
    [[ $(uname -m) == x86_64 ]] || TWICE=("${TWICE[@]/aarch64-*/}")
}

evaluates() {
    step "evaluating the flake, for x86_64 and aarch64"
    nix_ flake check --no-build "$FLAKE" 2> >(grep --line-buffered -vE '^(evaluating|checking)' >&2)
}

# The derivation says all that the result depends on: the sandbox shows the build nothing else.
evaluates_elsewhere() {
    step "evaluating from another folder, as another user, on another day"
    local here there elsewhere
    here=$(nix_ eval --raw "$FLAKE#images.drvPath")
    elsewhere=$(mktemp -d)
    export_tree "$elsewhere/another-folder"
    cp -r "$STAND_IN" "$elsewhere/hostpkgs"
    cp -r "$HERE/conf" "$elsewhere/conf"
    as_root chown -R nobody "$elsewhere"
    there=$(as_root setpriv --reuid=nobody --regid=nogroup --clear-groups env -i PATH="$PATH" HOME="$elsewhere/home" \
        NIX_CONF_DIR="$elsewhere/conf" faketime -f "$ANOTHER_DAY" \
        nix eval --raw --store "$elsewhere/store" --offline --no-write-lock-file \
        --override-input nixpkgs "path:$elsewhere/hostpkgs" "path:$elsewhere/another-folder#images.drvPath" 2>"$HERE/elsewhere.log") ||
        die "the flake cannot be evaluated elsewhere: $(tail -3 "$HERE/elsewhere.log")"
    as_root chmod -R u+w "$elsewhere"
    as_root rm -rf "$elsewhere"
    [[ $here == "$there" ]] || die "elsewhere the images are others: $there, and not $here (nix-diff tells what differs)"
    echo "    the same derivation: $here"
}

builds() {
    step "building the images, and trying them in an empty root (cold: RocksDB and the dependencies come first)"
    local attributes=("$FLAKE#images") check
    for check in "${CHECKS[@]}"; do
        attributes+=("$FLAKE#checks.$(uname -m)-linux.$check")
    done
    nix_ build --print-build-logs --no-link "${attributes[@]}"
    touch "$HERE/built"
}

# The second build sees another date in its sandbox, and runs under another of Nix's build users. Nix itself compares
# the results byte for byte.
builds_twice() {
    local name drv proven=$HERE/proven preload todo=() marks=()
    mkdir -p "$proven"
    for name in "$@"; do
        [[ -n $name ]] || continue
        drv=$(nix_ eval --raw "$FLAKE#$name.drvPath")
        [[ -e $proven/${drv##*/} ]] && continue
        todo+=("$FLAKE#$name")
        marks+=("$proven/${drv##*/}")
    done
    if ((${#todo[@]} == 0)); then
        step "built twice with equal bytes before, and nothing has changed since"
        return
    fi
    step "building a second time, at $(date -d "$(faketime -f "$ANOTHER_DAY" date)" +%F): ${todo[*]#*#}"
    nix_ build --no-link "${todo[@]}"
    preload=$(dpkg -L libfaketime | grep 'libfaketimeMT.so.1$')
    mkdir -p "$HERE/another-day"
    echo "$preload" >"$HERE/another-day/preload"
    echo "$ANOTHER_DAY" >"$HERE/another-day/faketimerc"
    # Nix takes the first build user that nobody holds.
    (
        first=/nix/var/nix/userpool/$(id -u nixbld1)
        if [[ -w $first ]]; then
            exec 7>>"$first"
            flock -n 7 || true
        fi
        nix_ build --rebuild --no-link "${todo[@]}" --option extra-sandbox-paths \
            "/etc/ld.so.preload=$HERE/another-day/preload /etc/faketimerc=$HERE/another-day/faketimerc"
    ) || die "the second build differs: see above for the paths, and compare them (diffoscope)"
    touch "${marks[@]}"
    echo "    the same bytes"
}

report() {
    local images
    images=$(nix_ eval --raw "$FLAKE#images")
    echo
    jq -r 'to_entries[] | "    \(.key)\t\(.value.manifest)\t\(.value.size / 1048576 * 100 | floor / 100) MiB"' "$images/digests.json" | expand -t 16,92
    cat <<'TEXT'

    Proven here: nix/*.nix evaluates and builds in a sandbox without a network; the images do not depend on folder, user,
    date or order; their layout and limits; that the programs run in an empty, read-only root as any user.
    Not proven here: these are the machine's compilers, in the place of nixpkgs' own. That the flake builds with those,
    and which digests they give, shows `nix build .#images` alone, where nixpkgs can be reached (docs/verify.md).
TEXT
}

set_up
only_here
evaluates
evaluates_elsewhere
builds
builds_twice "${TWICE[@]}"
if [[ ${1:-} == --everything ]]; then
    builds_twice librocksdb controller.dependencies init.dependencies sample-app.dependencies
fi
report
step "done"
