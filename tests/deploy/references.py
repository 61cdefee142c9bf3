#!/usr/bin/env python3
"""Prints the names and labels in objects of a namespace to which nothing else fits. The API server accepts these.

  kubectl get pods,services,… --output json | references.py
"""

import json
import sys


class Namespace:
    """The objects of a namespace."""

    def __init__(self, items):
        self.items = items
        self.pods = self.of("Pod")
        self.services = self.of("Service")

    def of(self, kind):
        return [item for item in self.items if item["kind"] == kind]

    def unresolved(self):
        for item in self.items:
            check = CHECKS.get(item["kind"])
            for problem in check(self, item["metadata"], item["spec"]) if check else ():
                yield f"{item['kind']} {item['metadata']['name']}: {problem}"

    def selected(self, selector):
        return [pod for pod in self.pods if has_labels(pod, selector)]

    def missing(self, kind, name):
        if not any(item["metadata"]["name"] == name for item in self.of(kind)):
            yield f"there is no {kind} {name}"

    def missing_port(self, name, port):
        services = [service for service in self.services if service["metadata"]["name"] == name]
        if not any(port in (one["name"], one["port"]) for service in services for one in service["spec"]["ports"]):
            yield f"there is no port {port} of a Service {name}"


def pod(namespace, metadata, spec):
    yield from namespace.missing("ServiceAccount", spec["serviceAccountName"])
    for volume in spec.get("volumes", []):
        if "configMap" in volume:
            yield from namespace.missing("ConfigMap", volume["configMap"]["name"])
        if "secret" in volume:
            yield from namespace.missing("Secret", volume["secret"]["secretName"])
    for container in spec["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            action = container.get(probe, {})
            action = action.get("httpGet") or action.get("tcpSocket")
            if action and action["port"] not in ports(spec):
                yield f"there is no port {action['port']} for {probe}"
        for variable in container.get("env", []):
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            if secret:
                yield from namespace.missing("Secret", secret["name"])
    for constraint in spec.get("topologySpreadConstraints", []):
        if not has_labels({"metadata": metadata}, constraint["labelSelector"]["matchLabels"]):
            yield "a topology spread constraint does not select it"


def service(namespace, _, spec):
    found = namespace.selected(spec["selector"])
    if not found:
        yield "selects no pod"
    for port in spec["ports"]:
        if not all(port["targetPort"] in ports(pod["spec"]) for pod in found):
            yield f"no container has the port {port['targetPort']}"


def disruption_budget(namespace, _, spec):
    if not namespace.selected(spec["selector"]["matchLabels"]):
        yield "selects no pod"


def network_policy(namespace, _, spec):
    sides = [(rule, [spec["podSelector"]]) for rule in spec.get("ingress", [])]
    for rule in spec.get("egress", []):
        sides += [(rule, [peer["podSelector"] for peer in rule["to"]])] if "to" in rule else []
    for rule, selectors in [({"ports": []}, [spec["podSelector"]]), *sides]:
        for selector in selectors:
            found = namespace.selected(selector["matchLabels"])
            if not found:
                yield f"{selector} selects no pod"
            for port in rule["ports"]:
                if not all(port["port"] in ports(pod["spec"]) for pod in found):
                    yield f"no container has the port {port['port']}"


def scaler(namespace, _, spec):
    yield from namespace.missing("Deployment", spec["scaleTargetRef"]["name"])


def route(namespace, _, spec):
    for rule in spec["rules"]:
        for target in rule["backendRefs"]:
            yield from namespace.missing_port(target["name"], target["port"])


def backend_tls_policy(namespace, _, spec):
    for target in spec["targetRefs"]:
        yield from namespace.missing_port(target["name"], target["sectionName"])


def service_monitor(namespace, _, spec):
    found = [service for service in namespace.services if has_labels(service, spec["selector"]["matchLabels"])]
    for endpoint in spec["endpoints"]:
        names = [port["name"] for service in found for port in service["spec"]["ports"]]
        if names.count(endpoint["port"]) != 1:
            yield f"{names.count(endpoint['port'])} Services have a port {endpoint['port']}"


CHECKS = {
    "BackendTLSPolicy": backend_tls_policy,
    "GRPCRoute": route,
    "HorizontalPodAutoscaler": scaler,
    "NetworkPolicy": network_policy,
    "Pod": pod,
    "PodDisruptionBudget": disruption_budget,
    "ScaledObject": scaler,
    "Service": service,
    "ServiceMonitor": service_monitor,
}


def has_labels(item, selector):
    labels = item["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in selector.items())


def ports(spec):
    """The names of the ports of all containers."""
    return {port["name"] for container in spec["containers"] for port in container.get("ports", [])}


for problem in Namespace(json.load(sys.stdin)["items"]).unresolved():
    print(problem)
