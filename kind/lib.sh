# shellcheck shell=bash disable=SC2034
# What the scripts of kind/ share. To be sourced.
#
# Owns the names by which everything of ours is told apart from what belongs to the user: a cluster's prefix, a network,
# a cache folder, an engine's socket. Nothing without one of these names is ever touched.

KIND_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(dirname "$KIND_DIR")
export KV_CACHE=${KV_CACHE:-$HOME/.cache/kubernetes-vault}
# What is made once a machine: programs, the engine's images, logs.
KIND_CACHE=$KV_CACHE/kind
# Every cluster of ours is called so, or by this and a suffix.
CLUSTER_PREFIX=kubernetes-vault
# The engine's network of our clusters; kind's own would be shared with clusters of the user.
NETWORK=kubernetes-vault
# Runtime files of the engine that we start: its socket decides which engine the scripts talk to.
ENGINE_RUN=/run/kubernetes-vault-engine
export KIND_EXPERIMENTAL_DOCKER_NETWORK=$NETWORK

say() {
    echo "kind: $1" >&2
}

# What failed, and what to do about it.
fail() {
    echo "kind: $1: $2" >&2
    exit 1
}

kubernetes_version() {
    sed -n 's/^require k8s.io\/kubernetes //p' "$KIND_DIR/node-image/modules/kubernetes/go.mod"
}

needs_go() {
    local found
    found=$(cd / && go env GOVERSION 2>/dev/null | sed 's/^go//') || true
    [[ -n $found && $(printf '%s\n' 1.26 "$found" | sort -V | head -1) == 1.26 ]] ||
        fail "Go 1.26 or later is missing (found: ${found:-none})" "install it from https://go.dev/dl/ and put its bin folder on PATH"
}

# needs_space GB FOLDER
needs_space() {
    local free
    free=$(df --output=avail --block-size=1G "$2" | tail -1)
    ((free >= $1)) || fail "$2 has $((free)) GB free, $1 are needed" "make space, or set KV_CACHE to a folder on another disk"
}

# The testbed's kube-apiserver and Vault, one a line, built where the cache has none.
testbed_servers() {
    local testbed=${CARGO_TARGET_DIR:-$REPOSITORY/target}/debug/testbed
    [[ -x $testbed ]] || fail "the testbed is not built" "\`make ready\` does that"
    "$testbed" build --print
}

# The one binary with the whole control plane.
control_plane() {
    local binary
    binary=$(dirname "$(testbed_servers | head -1)")/control-plane
    [[ -x $binary ]] || fail "the control plane is not one binary here" "take kube-apiserver off PATH: the testbed builds one then"
    echo "$binary"
}

# Of the containers that the suite starts beside a cluster.
CONTAINER_LABEL=kubernetes-vault.suite

# Whether an engine answers: the one that DOCKER_HOST names, else ours if it runs, else the user's.
reach_engine() {
    [[ -n ${DOCKER_HOST:-} ]] || eval "$("$KIND_DIR/engine" env)"
    command -v docker >/dev/null && timeout 10 docker version >/dev/null 2>&1
}

use_engine() {
    reach_engine || fail "no engine answers" "kind/engine up starts one"
    KIND=$("$KIND_DIR/node-image/programs" kind)/kind
}

kind() {
    "${KIND:=$("$KIND_DIR/node-image/programs" kind)/kind}" "$@"
}

# Clusters of ours, one a line. Others are none of our business.
our_clusters() {
    kind get clusters 2>/dev/null | grep -E "^$CLUSTER_PREFIX(-|$)" || true
}

kubeconfig_of() {
    echo "$KIND_CACHE/$1.kubeconfig"
}

# One run at a time: two would take each other's cluster for left over. A script that was called by the holder of the
# lock has it already.
take_lock() {
    [[ -z ${KV_KIND_LOCKED:-} ]] || return 0
    mkdir -p "$KIND_CACHE"
    exec 7>>"$KIND_CACHE/.lock"
    flock --nonblock 7 || fail "another run has the cluster (process $(cat "$KIND_CACHE/.lock.holder" 2>/dev/null || echo unknown))" "wait for its end; there is one cluster at a time"
    echo $$ >"$KIND_CACHE/.lock.holder"
    export KV_KIND_LOCKED=1
}
