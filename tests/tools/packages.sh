# shellcheck shell=bash
# How scripts install programs that a machine does not have. Sourced, not run; the script that sources this sets `tools`,
# the directory for programs in fixed versions. Each function does nothing if its program is installed already, and
# returns 1 if it cannot install it.

# debian_program PROGRAM PACKAGE: installs Debian's package unless the program is in the PATH.
debian_program() {
    command -v "$1" >/dev/null || debian_package "$2"
}

# debian_package PACKAGE: needs root, or sudo without a password.
debian_package() {
    command -v apt-get >/dev/null || return 1
    ((EUID == 0)) || sudo -n true 2>/dev/null || return 1
    echo "installing $1"
    # A fresh machine has no package lists before its first update.
    apt_get install -y --no-install-recommends "$1" 2>/dev/null ||
        { apt_get update && apt_get install -y --no-install-recommends "$1"; }
}

# Waits up to five minutes while another process holds a lock of apt, such as a fresh machine's automatic upgrades. The
# option covers dpkg's lock, the loop those of the package lists and archives.
apt_get() {
    local command=(env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -qq -o DPkg::Lock::Timeout=300) deadline output
    ((EUID == 0)) || command=(sudo -n "${command[@]}")
    ((deadline = SECONDS + 300))
    until output=$("${command[@]}" "$@" </dev/null 2>&1); do
        if [[ $output != *'Could not get lock'* ]] || ((SECONDS >= deadline)); then
            echo "$output" >&2
            return 1
        fi
        sleep 2
    done
}

# python_packages DIRECTORY REQUIREMENTS: DIRECTORY becomes a virtual environment with what the file lists.
python_packages() {
    if ! cmp -s "$2" "$1/installed"; then
        debian_program python3 python3 || return 1
        echo "installing Python packages into ${1#"${tools%/*}"/}"
        # In Debian, `venv` works only with a package of its own.
        python3 -m venv "$1" >/dev/null 2>&1 || { debian_package python3-venv && python3 -m venv "$1"; } || return 1
        "$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$2" || return 1
        cp "$2" "$1/installed"
    fi
}

# cargo_program CRATE@VERSION: .tools/bin/CRATE is a link to .tools/bin/CRATE@VERSION. Built without optimisation and
# debug information, which takes half the time.
cargo_program() {
    local name=${1%@*}
    if [[ ! -x $tools/bin/$1 ]]; then
        echo "building $name ${1#*@} (some minutes, once)"
        env -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=false \
            cargo install --quiet --locked --debug --no-track --force --root "$tools/cargo" "$1" || return 1
        mv "$tools/cargo/bin/$name" "$tools/bin/$1"
    fi
    ln -sfn "$1" "$tools/bin/$name"
}

# go_program PACKAGE@VERSION: .tools/bin/NAME is a link to .tools/bin/NAME@VERSION.
go_program() {
    local package=${1%@*} version=${1#*@} name
    name=${package##*/}
    if [[ ! -x $tools/bin/$name@$version ]]; then
        go_compiler || return 1
        echo "installing $name $version"
        CGO_ENABLED=0 GOBIN=$tools/go go install "$package@$version" || return 1
        mv "$tools/go/$name" "$tools/bin/$name@$version"
    fi
    ln -sfn "$name@$version" "$tools/bin/$name"
}

# Puts a Go into the PATH that is able to build with the version a package asks for. Before 1.21, as in Debian 12, Go
# cannot download other versions of itself (and has no GOTOOLCHAIN).
go_compiler() {
    [[ -z $(go env GOTOOLCHAIN 2>/dev/null) ]] || return 0
    python_packages "$tools/go-compiler" "$(dirname "${BASH_SOURCE[0]}")/go-requirements.txt" || return 1
    local binaries=("$tools"/go-compiler/lib/python3*/site-packages/go/bin)
    export PATH="${binaries[0]}:$PATH"
    # The tests find it here.
    ln -sfn "${binaries[0]}/go" "$tools/bin/go"
}
