# shellcheck shell=bash disable=SC2034 # the variables are for the scripts that source this
# The servers behind `make test` and `make dev`. Sourced, not run.
#
# Each start_… function takes the directory for the server's files, listens on a free loopback port and leaves
# the server's address in the variable its comment names. It returns 1 if the program is not installed.
# Everything started is stopped when the script ends, however it ends.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=$root/.tools
export PATH="$tools/bin:$PATH"

# tests/common has the same.
s3_access_key=test-access-key
s3_secret_key=test-secret-key
# The account every Azurite has; its key is published in Azurite's documentation.
azure_account=devstoreaccount1
azure_account_key='Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=='

servers=()

stop_servers() {
    if ((${#servers[@]})); then
        kill "${servers[@]}" 2>/dev/null || true
        wait "${servers[@]}" 2>/dev/null || true
    fi
    servers=()
}
trap stop_servers EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# A free port, below the range that Linux uses for outgoing connections.
free_port() {
    local port
    while port=$(shuf -i 10240-32767 -n 1) && listens "$port"; do :; done
    echo "$port"
}

listens() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# wait_for PORT LOG: waits until the server that was started last listens; if it does not, prints its log and exits.
wait_for() {
    local attempt
    servers+=("$!")
    for ((attempt = 0; attempt < 300; attempt++)); do
        if listens "$1"; then return 0; fi
        if ! kill -0 "${servers[-1]}" 2>/dev/null; then break; fi
        sleep 0.1
    done
    echo "a server did not start on port $1:" >&2
    cat "$2" >&2
    exit 1
}

# Sets redis_url. Passes further arguments to redis-server.
start_redis() {
    local directory=$1 port
    command -v redis-server >/dev/null || return 1
    mkdir -p "$directory"
    port=$(free_port)
    redis-server --bind 127.0.0.1 --port "$port" --dir "$directory" --save '' --maxmemory-policy noeviction \
        "${@:2}" >"$directory/log" 2>&1 &
    wait_for "$port" "$directory/log"
    redis_url=redis://127.0.0.1:$port
}

# Sets s3_endpoint. A directory DIR/buckets/NAME is the bucket NAME.
start_versitygw() {
    local directory=$1 port
    command -v versitygw >/dev/null || return 1
    mkdir -p "$directory/buckets"
    port=$(free_port)
    ROOT_ACCESS_KEY=$s3_access_key ROOT_SECRET_KEY=$s3_secret_key \
        versitygw --port "127.0.0.1:$port" --quiet posix "$directory/buckets" >"$directory/log" 2>&1 &
    wait_for "$port" "$directory/log"
    s3_endpoint=http://127.0.0.1:$port
}

# Sets azure_endpoint.
start_azurite() {
    local directory=$1 port
    command -v azurite-blob >/dev/null || return 1
    mkdir -p "$directory"
    port=$(free_port)
    azurite-blob --blobPort "$port" --location "$directory" --skipApiVersionCheck --silent --disableTelemetry \
        >"$directory/log" 2>&1 &
    wait_for "$port" "$directory/log"
    azure_endpoint=http://127.0.0.1:$port/$azure_account
}
