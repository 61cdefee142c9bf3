# shellcheck shell=bash disable=SC2034,SC2154 # variables of the scripts that source this, and for them
# A Kubernetes cluster without nodes: etcd and kube-apiserver, and kubectl to use it. Sourced, not run, after
# tests/backends/servers.sh and tests/tools/packages.sh.

kubernetes=$tools/kubernetes
export PATH="$kubernetes/bin:$PATH"

# The CustomResourceDefinitions that the components of deploy/kubernetes need: modules, and their files.
keda=github.com/kedacore/keda/v2@v2.21.0
keda_definitions=(config/crd/bases/keda.sh_scaledobjects.yaml)
gateway_api=sigs.k8s.io/gateway-api@v1.6.3
gateway_api_definitions=(config/crd/standard/gateway.networking.k8s.io_{backendtlspolicies,grpcroutes}.yaml)
prometheus_operator=github.com/prometheus-operator/prometheus-operator@v0.85.0
prometheus_operator_definitions=(example/prometheus-operator-crd/monitoring.coreos.com_{prometheusrules,servicemonitors}.yaml)

# Builds the programs of tests/deploy/programs, and gets the definitions. A second run takes no time.
install_control_plane() {
    mkdir -p "$kubernetes"/{bin,definitions}
    programs || return 1
    definitions "$keda" "${keda_definitions[@]}" &&
        definitions "$gateway_api" "${gateway_api_definitions[@]}" &&
        definitions "$prometheus_operator" "${prometheus_operator_definitions[@]}"
}

control_plane=()

programs() {
    local source=$root/tests/deploy/programs version cache status=0
    sources() { cat "$source/go.mod" "$source/go.sum" "$source/etcd/main.go"; }
    if sources | cmp -s - "$kubernetes/installed"; then return 0; fi
    go_compiler || return 1
    echo 'building kube-apiserver, kubectl and etcd (some minutes, once)'
    version=$(sed -n 's|^.*k8s.io/kubernetes \(v[0-9.]*\).*|\1|p' "$source/go.mod")
    # What the compiler keeps has gigabytes, and nothing else uses it.
    cache=$(mktemp -d "${TMPDIR:-/tmp}/control-plane.XXXXXX")
    (cd "$source" && CGO_ENABLED=0 GOCACHE=$cache go build -p 2 -trimpath \
        -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" \
        -o "$kubernetes/bin/" ./etcd k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl) || status=1
    rm -rf "$cache"
    if ((status == 0)); then sources >"$kubernetes/installed"; fi
    return "$status"
}

# definitions MODULE@VERSION FILE…: copies files of the Go module.
definitions() {
    local module=$1 target=$kubernetes/definitions/${1//\//+} directory
    shift
    if [[ -d $target ]]; then return 0; fi
    go_compiler || return 1
    directory=$(cd / && go mod download -json "$module" | jq -r '.Dir // empty')
    if [[ -z $directory ]]; then return 1; fi
    mkdir "$target.new"
    (cd "$directory" && cp --no-preserve=mode "$@" "$target.new") || return 1
    mv "$target.new" "$target"
}

# Without etcd, which ends first, kube-apiserver waits for minutes. What it has is not needed again.
stop_control_plane() {
    kill -KILL "${control_plane[@]}" 2>/dev/null || true
}

# start_control_plane DIRECTORY: sets KUBECONFIG, for an administrator; api_server, its URL; api_authorities, a PEM file; and
# issuer, the issuer of its ServiceAccount tokens. Applies the definitions.
start_control_plane() {
    local directory=$1 etcd_port port attempt
    mkdir -p "$directory"
    etcd_port=$(free_port)
    # Nothing needs to outlive a crash.
    etcd --unsafe-no-fsync --log-level warn --data-dir "$directory/etcd" --listen-peer-urls http://127.0.0.1:0 \
        --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
        >"$directory/etcd.log" 2>&1 &
    control_plane=("$!")
    wait_for "$etcd_port" "$directory/etcd.log"

    openssl genrsa -out "$directory/tokens.key" 2048 2>/dev/null
    echo 'administrator,administrator,administrator,system:masters' >"$directory/administrators.csv"
    issuer=https://kubernetes.default.svc.cluster.local
    port=$(free_port)
    kube-apiserver --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --secure-port "$port" \
        --cert-dir "$directory/certificates" \
        --etcd-servers "http://127.0.0.1:$etcd_port" --service-cluster-ip-range 10.96.0.0/16 \
        --authorization-mode RBAC --allow-privileged --token-auth-file "$directory/administrators.csv" \
        --service-account-issuer "$issuer" --service-account-signing-key-file "$directory/tokens.key" \
        --service-account-key-file "$directory/tokens.key" --endpoint-reconciler-type none \
        >"$directory/kube-apiserver.log" 2>&1 &
    control_plane+=("$!")
    wait_for "$port" "$directory/kube-apiserver.log"

    api_server=https://127.0.0.1:$port
    api_authorities=$directory/certificates/apiserver.crt
    export KUBECONFIG=$directory/kubeconfig
    kubectl config set-cluster check --server "$api_server" --certificate-authority "$api_authorities" >/dev/null
    kubectl config set-credentials administrator --token administrator >/dev/null
    kubectl config set-context check --cluster check --user administrator >/dev/null
    kubectl config use-context check >/dev/null
    for ((attempt = 0; attempt < 300; attempt++)); do
        if kubectl get --raw /readyz >/dev/null 2>&1; then break; fi
        sleep 0.2
    done
    kubectl get --raw /readyz >/dev/null || { cat "$directory/kube-apiserver.log" >&2 && return 1; }
    kubectl apply --server-side --recursive --filename "$kubernetes/definitions" >/dev/null
    kubectl wait --for condition=Established --timeout 60s crd --all >/dev/null
}
