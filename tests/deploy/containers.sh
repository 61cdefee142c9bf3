# shellcheck shell=bash disable=SC2034,SC2154 # variables of and for the script that sources this
# The image of the gateway and containers of it, without a registry and without a daemon: `buildah` builds, `runc` runs.
# Sourced, not run; the script that sources this has sourced tests/backends/servers.sh and sets `directory`, where images and
# containers are kept.

# shellcheck source-path=SCRIPTDIR
source "$root/tests/tools/packages.sh"

image=localhost/upload-gateway
containers=()

container_programs() {
    local package
    for package in buildah runc jq; do
        debian_program "$package" "$package" || return 1
    done
    debian_program ip iproute2 && cargo_program cargo-auditable@0.7.7
}

# in_own_network COMMAND…: runs a command as root, in a network that has loopback addresses only.
in_own_network() {
    local command=(env "PATH=$PATH" unshare --net "$@")
    ((EUID == 0)) || command=(sudo -n "${command[@]}")
    "${command[@]}"
}

images() {
    buildah --root "$directory/images/root" --runroot "$directory/images/run" --storage-driver vfs "$@"
}

# The files that distroless/cc has too, from the packages of this machine: the C library, those of the compiler, OpenSSL,
# authorities, time zones, and a user.
local_base() {
    local base=$directory/base
    mkdir -p "$base"/{home/nonroot,tmp,usr/{lib,lib64,bin,sbin},etc/ssl/certs}
    # Each release of Debian and Ubuntu lacks one of the names of OpenSSL.
    { dpkg -L base-files ca-certificates libc6 libgcc-s1 libgomp1 libssl3 libssl3t64 libstdc++6 netbase tzdata 2>/dev/null || true; } |
        grep -vE '^/\.$|^/usr/(s?bin|share/(doc|man|locale|lintian|bug))/' |
        tar --create --no-recursion --ignore-failed-read --files-from - 2>/dev/null |
        tar --extract --directory "$base" --keep-directory-symlink
    cp /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs"
    printf '%s\n' root:x:0:0:root:/root:/sbin/nologin nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin \
        >"$base/etc/passwd"
    printf '%s\n' root:x:0: nonroot:x:65532: >"$base/etc/group"
    images build --quiet --tag localhost/base --file - "$base" >/dev/null <<'DOCKERFILE'
FROM scratch
COPY . /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /home/nonroot
USER 65532
DOCKERFILE
}

# build_image BINARY: the image of deploy/Dockerfile, with bases of this machine and a binary that is built already.
build_image() {
    local_base
    mkdir "$directory/binary"
    strip --output-file "$directory/binary/upload-gateway" "$1"
    printf 'FROM scratch\nCOPY upload-gateway /\n' |
        images build --quiet --tag localhost/binary --file - "$directory/binary" >/dev/null
    images build --quiet --isolation chroot --format docker --tag "$image" --file "$root/deploy/Dockerfile" \
        --build-arg BASE=localhost/base --build-arg BINARY=localhost/binary "$root" >/dev/null
}

# image_config FILTER: a value of the configuration of the image.
image_config() {
    images inspect --type image "$image" | jq "$1"
}

# image_root IMAGE: prints the directory with the files of an image.
image_root() {
    images mount "$(images from --pull-never "$1")"
}

# start_container SETTINGS: runs a container of the image (container.jq has the fields of the settings). Its output is
# $directory/NAME/log. Sets container_pid, and container_runner, the process that ends with the exit code of the container.
start_container() {
    local name bundle
    name=$(jq --raw-output .name <<<"$1")
    bundle=$directory/$name
    mkdir "$bundle"
    runc spec --bundle "$bundle"
    mv "$bundle/config.json" "$bundle/default.json"
    jq --argjson image "$(image_config .OCIv1.config)" --argjson settings "$1" --argjson open_files "$(ulimit -Hn)" \
        --arg cgroup "/${directory##*/}-$name" --from-file "$root/tests/deploy/container.jq" \
        "$bundle/default.json" >"$bundle/config.json"
    runc --root "$directory/runc" run --bundle "$bundle" --pid-file "$bundle/pid" "$name" >"$bundle/log" 2>&1 &
    container_runner=$!
    containers+=("$name")
    until [[ -s $bundle/pid ]]; do
        kill -0 "$container_runner" 2>/dev/null || { cat "$bundle/log" >&2 && return 1; }
        sleep 0.1
    done
    container_pid=$(<"$bundle/pid")
}

# in_container NAME COMMAND…: runs a command in a container.
in_container() {
    runc --root "$directory/runc" exec "$@"
}

# memory_cgroup NAME: the directory in which the kernel counts the memory of a container, in cgroup v1 or v2.
memory_cgroup() {
    local cgroups=/sys/fs/cgroup
    [[ -d $cgroups/memory ]] && cgroups=$cgroups/memory
    echo "$cgroups/${directory##*/}-$1"
}

# kills_in NAME: how many processes of a container the kernel has killed because it had no memory.
kills_in() {
    local cgroup file
    cgroup=$(memory_cgroup "$1")
    for file in "$cgroup"/memory.{oom_control,events}; do
        [[ ! -e $file ]] || sed -n 's/^oom_kill //p' "$file"
    done
}

stop_containers() {
    local name
    for name in "${containers[@]}"; do
        runc --root "$directory/runc" delete --force "$name" 2>/dev/null || true
    done
    containers=()
}
