#!/usr/bin/env bash
# The offline proof: the flake evaluates, and the images come out the same, whoever builds them, where and when.
#
#   nix/ci.sh                 our own crates and the images are built twice
#   nix/ci.sh --everything    their dependencies and RocksDB too, which takes as long as a cold run
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=nix/setup.sh
. nix/setup.sh

CHECKS=(image-layout image-test)
TWICE=(controller init sample-app image-controller image-init image-sample-app)
# Compiled for the other architecture, which a machine of that one need not do.
if [[ $(uname -m) == x86_64 ]]; then
    TWICE+=(aarch64-init aarch64-sample-app)
fi

step() { printf '%s  nix: %s\n' "$(date +%T)" "$*"; }

evaluates() {
    step "evaluating the flake, for x86_64 and aarch64"
    nix_ flake check --no-build "$FLAKE" 2> >(grep --line-buffered -vE '^(evaluating|checking)' >&2)
    # Later versions of Nix check this machine's architecture alone.
    local system
    for system in x86_64-linux aarch64-linux; do
        nix_ eval --json "$FLAKE#packages.$system" --apply 'builtins.mapAttrs (name: package: package.drvPath)' >/dev/null
    done
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
    cp "$HERE/another-day.so" "$elsewhere/another-day.so"
    as_root chown -R 65534 "$elsewhere"
    there=$(as_root setpriv --reuid=65534 --regid=65534 --clear-groups env -i PATH="$PATH" HOME="$elsewhere/home" \
        NIX_CONF_DIR="$elsewhere/conf" LD_PRELOAD="$elsewhere/another-day.so" \
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

# A second build sees another date in its sandbox, and runs as another of Nix's build users. Nix itself compares the
# results byte for byte.
again() {
    local first result=0
    # Nix takes the first build user that nobody holds.
    first=/nix/var/nix/userpool/$(id -u nixbld1)
    if [[ -w $first ]]; then
        exec 7>>"$first"
        flock -n 7 || true
    fi
    "$@" --option extra-sandbox-paths "/etc/ld.so.preload=$HERE/preload /another-day.so=$HERE/another-day.so" || result=$?
    exec 7>&-
    return "$result"
}

make_another_day() {
    gcc -O2 -shared -fPIC -o "$HERE/another-day.so" nix/another-day.c
    echo /another-day.so >"$HERE/preload"
}

# A test that cannot fail would prove nothing.
dated_is_caught() {
    as_root env NIX_CONF_DIR="$HERE/conf" NIX_REMOTE=local nix-build --no-out-link nix/dated.nix >/dev/null 2>&1
    if again as_root env NIX_CONF_DIR="$HERE/conf" NIX_REMOTE=local nix-build --no-out-link --check nix/dated.nix >"$HERE/dated.log" 2>&1; then
        die "a file with the date in it was taken for reproducible: the second build does not see another day"
    fi
    grep -q 'may not be deterministic' "$HERE/dated.log" || die "the second build does not start: $(tail -3 "$HERE/dated.log")"
}

# What was proven once for a derivation is not built again.
builds_twice() {
    local proven=$HERE/proven todo=() marks=() derivations=() i
    mkdir -p "$proven"
    mapfile -t derivations < <(nix_ eval --json "$FLAKE#packages.$(uname -m)-linux" --apply "p: [ $(printf 'p.%s.drvPath ' "$@")]" | jq -r '.[]')
    ((${#derivations[@]} == $#)) || die "cannot evaluate $*"
    for ((i = 0; i < $#; i++)); do
        [[ -e $proven/${derivations[i]##*/} ]] && continue
        todo+=("$FLAKE#${*:i+1:1}")
        marks+=("$proven/${derivations[i]##*/}")
    done
    if ((${#todo[@]} == 0)); then
        step "built twice with equal bytes before, and nothing has changed since"
        return
    fi
    dated_is_caught
    step "building a second time, on $(LD_PRELOAD=$HERE/another-day.so date +%F): ${todo[*]#*#}"
    nix_ build --no-link "${todo[@]}"
    again nix_ build --rebuild --no-link "${todo[@]}" || die "the second build differs: the paths are above (diffoscope compares them)"
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
make_another_day
evaluates
evaluates_elsewhere
builds
builds_twice "${TWICE[@]}"
if [[ ${1:-} == --everything ]]; then
    builds_twice librocksdb controller.dependencies init.dependencies sample-app.dependencies
fi
report
step "done"
