# shellcheck shell=bash
# Nix without a network, for the scripts beside this file, which source it: Debian's package, a configuration of our own,
# the crates of Cargo.lock in the store, and hostpkgs in the place of nixpkgs.
#
# Afterwards `nix_ ARGUMENTS` is nix, and `$FLAKE` names the tree that is built.

: "${KV_CACHE:=$HOME/.cache/kubernetes-vault}"
HERE=$KV_CACHE/nix
# The dependencies of all programs, RocksDB and the vendored crates, with room for a second build of them.
NEEDED_MIB=6000
# Another run builds for as long as a cold one takes, and then there is nothing left to do for this one.
LOCK_PATIENCE_SECONDS=3600
# What may decide on the bytes of a result. Another version of one of them builds everything anew.
PACKAGES=(bash binutils coreutils libc6-dev 'libclang*' libc6-dev-arm64-cross 'libstdc++-*-dev' linux-libc-dev musl-dev sed tar)
COMPILERS=(gcc g++ aarch64-linux-gnu-gcc)

die() {
    echo "nix: $*" >&2
    exit 1
}

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

# The oldest Nix that this is tried with is Debian 12's.
install_nix() {
    local missing=() command
    local -A packages=([nix]=nix-bin [aarch64-linux-gnu-gcc]=gcc-aarch64-linux-gnu [jq]=jq
        [musl-gcc]=musl-tools [gcc]=gcc [g++]=g++ [readelf]=binutils [ip]=iproute2)
    [[ $(uname -m) == x86_64 ]] || unset 'packages[aarch64-linux-gnu-gcc]'
    for command in "${!packages[@]}"; do
        command -v "$command" >/dev/null || missing+=("${packages[$command]}")
    done
    [[ ! -e /usr/aarch64-linux-gnu/lib/crt1.o && -v packages[aarch64-linux-gnu-gcc] ]] && missing+=(libc6-dev-arm64-cross)
    getent group nixbld >/dev/null || missing+=(nix-setup-systemd)
    ((${#missing[@]} == 0)) && return
    command -v apt-get >/dev/null ||
        die "missing: ${missing[*]} (names of Debian packages), and there is no apt to install them: install Nix 2.8 or later and the others, and try again"
    as_root true 2>/dev/null || die "missing: ${missing[*]}: install them (apt-get install), or let this run as root or with sudo"
    echo "installing: ${missing[*]}"
    as_root apt-get -o DPkg::Lock::Timeout=600 update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq \
        --no-install-recommends "${missing[@]}" >/dev/null
}

# Each of these fails minutes later otherwise, and with other words.
check_machine() {
    local free folder
    case $(uname -m) in
    x86_64 | aarch64) ;;
    *) die "there are no images for $(uname -m): build on x86_64 or aarch64" ;;
    esac
    as_root true 2>/dev/null || die "the sandbox is made by root: run this as root, or with sudo that asks for no password"
    as_root unshare --mount --pid --net --user --map-root-user --fork true 2>/dev/null ||
        die "no user namespaces, and so no sandbox: sysctl -w user.max_user_namespaces=10000, and in a container start it with --privileged"
    mkdir -p "$HERE"
    # Once built, a change takes little.
    [[ -e $HERE/built ]] && return
    for folder in /nix "$KV_CACHE"; do
        [[ -e $folder ]] || folder=/
        free=$(df --output=avail -BM "$folder" | tail -1 | tr -dc 0-9)
        ((free >= NEEDED_MIB)) || die "$free MiB free at $folder, and $NEEDED_MIB are needed: make room there, and try again"
    done
}

# One at a time: the tree and the package set are shared.
take_lock() {
    exec 8>"$HERE/lock"
    flock -n 8 && return
    echo "nix: another run is building; this one waits for it"
    flock -w "$LOCK_PATIENCE_SECONDS" 8 ||
        die "another run has held $HERE/lock for an hour: end it, and try again"
}

configure() {
    local sysroot
    sysroot=$(rustc --print sysroot)
    mkdir -p "$HERE/conf"
    # The sandbox shows the machine's tools and nothing else of it. Never /etc: Nix would make files in there.
    cat >"$HERE/conf/nix.conf" <<CONF
experimental-features = nix-command flakes
substituters =
flake-registry =
build-users-group = nixbld
sandbox = true
sandbox-fallback = false
sandbox-paths = /bin /lib /lib64 /usr /etc/alternatives /rust=$sysroot
cores = $(nproc)
max-jobs = 1
CONF
    export NIX_CONF_DIR=$HERE/conf
}

nix_() {
    as_root env NIX_CONF_DIR="$HERE/conf" NIX_REMOTE=local nix "$@" --offline --no-write-lock-file \
        --override-input nixpkgs "path:$STAND_IN" 2> >(grep --line-buffered -vE "^(warning: not writing|• Updated| +→|    'github)" >&2)
}

# cargo downloads, and Cargo.lock's checksums decide: what is in the store under this name has them.
add_crates() {
    local lock list stored files file
    local caches
    lock=$(sha256sum Cargo.lock | cut -c1-16)
    list=$HERE/crates-$lock
    if [[ -e $list ]]; then
        mapfile -t stored <"$list"
        as_root env NIX_REMOTE=local nix-store --check-validity "${stored[@]}" 2>/dev/null && return
    fi
    cargo fetch --locked --quiet
    caches=("${CARGO_HOME:-$HOME/.cargo}"/registry/cache/*)
    mapfile -t files < <(awk -F'"' '/^name = /{n=$2} /^version = /{v=$2} /^checksum = /{print n "-" v ".crate"}' Cargo.lock)
    stored=()
    for file in "${files[@]}"; do
        stored+=("$(find "${caches[@]}" -name "$file" -print -quit)")
    done
    as_root env NIX_REMOTE=local nix-store --add-fixed sha256 "${stored[@]}" >"$list.new"
    mv "$list.new" "$list"
}

stand_in() {
    STAND_IN=$HERE/hostpkgs
    rm -rf "$STAND_IN"
    cp -r nix/hostpkgs "$STAND_IN"
    tool_versions | jq -Rs '{tools: .}' >"$STAND_IN/machine.json"
}

tool_versions() {
    rustc -vV
    local compiler
    for compiler in "${COMPILERS[@]}"; do
        "$compiler" --version 2>/dev/null | head -1 || true
    done
    # Debian's names; elsewhere the compilers' own versions have to do.
    dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' "${PACKAGES[@]}" 2>/dev/null | sed -n 's/^ii *//p' || true
}

# What git knows of and what it does not ignore: no build folder, whatever lies about.
export_tree() {
    rm -rf "$1"
    mkdir -p "$1"
    git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do
            # One that is deleted and not yet committed.
            if [[ -e $file || -L $file ]]; then printf '%s\0' "$file"; fi
        done | tar --null --files-from=- -cf - | tar -xf - -C "$1"
}

set_up() {
    check_machine
    install_nix
    take_lock
    if command -v rustup >/dev/null; then
        rustup target list --installed | grep -q aarch64-unknown-linux-musl || rustup target add aarch64-unknown-linux-musl
    fi
    configure
    add_crates
    stand_in
    export_tree "$HERE/tree"
    export FLAKE=path:$HERE/tree
}
