#!/usr/bin/env python3
"""Prepares what the container `upload-gateway` of a pod would have: its files and its environment variables.

  container.py NAMESPACE POD DIRECTORY AUTHORITIES [OLD NEW]…

Writes the files of its volumes below DIRECTORY/root, as a kubelet would, with AUTHORITIES as those of the API server; its
configuration with the paths of these files, and with NEW instead of OLD, as DIRECTORY/gateway.toml; and its variables as
DIRECTORY/variables, one a line.
"""

import base64
import json
import pathlib
import subprocess
import sys


def main(namespace, name, directory, authorities, *replacements):
    directory = pathlib.Path(directory)
    root = directory / "root"
    pod = get(namespace, "pod", name)["spec"]
    container = pod["containers"][0]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    for mount in container["volumeMounts"]:
        for path, content in files(namespace, pod, volumes[mount["name"]], authorities):
            path = root / mount["mountPath"].lstrip("/") / path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    arguments = container["args"]
    config = root / arguments[arguments.index("--config") + 1].lstrip("/")
    text = config.read_text()
    for old, new in zip(replacements[::2], replacements[1::2], strict=True):
        if old not in text:
            sys.exit(f"the configuration of {namespace} does not have {old}")
        text = text.replace(old, new)
    for mount in mounts:
        text = text.replace(f'"{mount}/', f'"{root}{mount}/')
    (directory / "gateway.toml").write_text(text)
    lines = [f"{name}={value}\n" for name, value in variables(namespace, pod, container)]
    (directory / "variables").write_text("".join(lines))


def files(namespace, pod, volume, authorities):
    """The files of a volume, and their contents."""
    if "configMap" in volume:
        for path, text in get(namespace, "configmap", volume["configMap"]["name"])["data"].items():
            yield path, text.encode()
    elif "secret" in volume:
        for path, text in get(namespace, "secret", volume["secret"]["secretName"])["data"].items():
            yield path, base64.b64decode(text)
    else:
        # Of the ServiceAccount; admission has added it to the pod.
        for source in volume["projected"]["sources"]:
            if "serviceAccountToken" in source:
                token = kubectl(namespace, "create", "token", pod["serviceAccountName"])
                yield source["serviceAccountToken"]["path"], token.strip()
            elif source.get("configMap", {}).get("name") == "kube-root-ca.crt":
                yield source["configMap"]["items"][0]["path"], pathlib.Path(authorities).read_bytes()


def variables(namespace, pod, container):
    """The variables of the container, and those of the Services of its namespace if the pod has them."""
    for variable in container.get("env", []):
        yield variable["name"], variable["value"]
    if pod["enableServiceLinks"]:
        for service in get(namespace, "services")["items"]:
            name = service["metadata"]["name"].upper().replace("-", "_")
            yield f"{name}_SERVICE_HOST", service["spec"]["clusterIP"]
            yield f"{name}_SERVICE_PORT", service["spec"]["ports"][0]["port"]


def get(namespace, *what):
    return json.loads(kubectl(namespace, "get", "--output", "json", *what))


def kubectl(namespace, *arguments):
    command = ["kubectl", "--namespace", namespace, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


main(*sys.argv[1:])
