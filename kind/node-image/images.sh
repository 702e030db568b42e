# shellcheck shell=bash
# Writes images FROM scratch into one archive, as `docker save` would. To be sourced.
#
# No engine is asked: layers are what tar makes of a folder, an image is a list of them. Equal layers are stored once.

declare -a IMAGE_ENTRIES=()

# layer WORK TREE: packs the tree, prints the layer's digest.
layer() {
    local work=$1 tree=$2 digest
    tar --create --directory "$tree" --numeric-owner --owner 0 --group 0 --mtime @0 --sort name --file "$work/layer" .
    digest=$(sha256sum "$work/layer" | cut -d' ' -f1)
    mv "$work/layer" "$work/$digest.tar"
    echo "$digest"
}

# image WORK NAME ENTRYPOINT LAYER...: adds an image. An empty ENTRYPOINT is none.
image() {
    local work=$1 name=$2 entrypoint=$3 config digest
    shift 3
    config=$(jq -cn --arg entrypoint "$entrypoint" --arg architecture "$(dpkg_architecture)" '{
        architecture: $architecture, os: "linux",
        config: ({Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
            + if $entrypoint == "" then {} else {Entrypoint: [$entrypoint]} end),
        rootfs: {type: "layers", diff_ids: ($ARGS.positional | map("sha256:" + .))}
    }' --args "$@")
    digest=$(printf '%s' "$config" | sha256sum | cut -d' ' -f1)
    printf '%s' "$config" >"$work/$digest.json"
    IMAGE_ENTRIES+=("$(jq -cn --arg config "$digest.json" --arg name "$name" \
        '{Config: $config, RepoTags: [$name], Layers: ($ARGS.positional | map(. + ".tar"))}' --args "$@")")
}

# archive WORK: the archive of all images so far, on the standard output.
archive() {
    (
        cd "$1" || exit
        printf '%s\n' "${IMAGE_ENTRIES[@]}" | jq -cs . >manifest.json
        # Digests and manifest.json: none of these names can be taken for an option.
        tar --create --file - -- *.json *.tar
    )
}

dpkg_architecture() {
    case $(uname -m) in
        x86_64) echo amd64 ;;
        aarch64) echo arm64 ;;
        *) uname -m ;;
    esac
}
