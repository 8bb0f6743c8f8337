"""What a cluster has of what Weir needs, found by asking it. Changes nothing."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from weir_cli.cluster.kubectl import Kubectl, KubectlError
from weir_cli.finding import Finding
from weir_operator.models import PLURALS

SYSTEM = "weir-system"
_DEPLOYMENTS = ("weir-operator", "weir-serving")
_WEBHOOKS = (
    ("mutatingwebhookconfigurations", "weir-mutating"),
    ("validatingwebhookconfigurations", "weir-validating"),
)
_KUBERNETES_NEEDED = (1, 29)
_KERNEL_NEEDED = (5, 10)
_INSTALL = "helm install weir charts/weir -n weir-system --create-namespace"


def all_findings(kubectl: Kubectl) -> Iterator[Finding]:
    """Everything, in the order in which things depend on each other."""
    system = kubectl.namespace or SYSTEM
    checks: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("Kubernetes", lambda: [_server(kubectl)]),
        ("nodes", lambda: _nodes(kubectl)),
        ("CRDs", lambda: _definitions(kubectl)),
        ("deployments", lambda: [_deployment(kubectl, system, name) for name in _DEPLOYMENTS]),
        ("webhooks", lambda: [_webhook(kubectl, kind, name) for kind, name in _WEBHOOKS]),
    )
    for what, look in checks:
        try:
            yield from look()
        except KubectlError as error:
            yield Finding(what, present=False, found=str(error), advice="may you read this? is the API server there?")


def _server(kubectl: Kubectl) -> Finding:
    version = kubectl.json("version")["serverVersion"]["gitVersion"]
    return Finding("Kubernetes", _at_least(version, _KUBERNETES_NEEDED), version, "native sidecars need 1.29 or newer")


def _nodes(kubectl: Kubectl) -> Iterator[Finding]:
    for node in _get(kubectl, "nodes", items=True):
        info = node["status"]["nodeInfo"]
        if info["operatingSystem"] != "linux":
            continue
        found = f"{info['kernelVersion']}, kubelet {info['kubeletVersion']}, {info['containerRuntimeVersion']}"
        fits = _at_least(info["kernelVersion"], _KERNEL_NEEDED) and _at_least(
            info["kubeletVersion"], _KUBERNETES_NEEDED
        )
        yield Finding(f"node {node['metadata']['name']}", fits, found, "Linux 5.10 and kubelet 1.29 are needed")


def _definitions(kubectl: Kubectl) -> Iterator[Finding]:
    found = {one["metadata"]["name"]: one for one in _get(kubectl, "customresourcedefinitions", items=True)}
    for kind in sorted(PLURALS.values()):
        one = found.get(f"{kind}.weir.dev")
        established = one is not None and _condition(one, "Established") == "True"
        yield Finding(f"CRD {kind}", established, advice=f"install Weir: {_INSTALL}")


def _deployment(kubectl: Kubectl, system: str, name: str) -> Finding:
    for one in _get(kubectl, "deployment", name, "--namespace", system):
        ready, wanted = one["status"].get("readyReplicas", 0), one["spec"].get("replicas", 1)
        advice = f"kubectl -n {system} describe deployment {name}"
        return Finding(f"deployment {name}", ready == wanted, f"{ready} of {wanted} ready", advice)
    return Finding(f"deployment {name}", present=False, advice=f"not in {system}: {_INSTALL}, or give -n NAMESPACE")


def _webhook(kubectl: Kubectl, kind: str, name: str) -> Finding:
    for one in _get(kubectl, kind, name):
        hooks = one.get("webhooks") or ()
        trusted = all(hook["clientConfig"].get("caBundle") for hook in hooks)
        policies = ", ".join(sorted({hook["failurePolicy"] for hook in hooks}))
        advice = "it has no caBundle yet: the operator writes it; look at its log"
        return Finding(f"webhook {name}", trusted, f"failurePolicy {policies}", advice)
    return Finding(f"webhook {name}", present=False, advice=_INSTALL)


def _get(kubectl: Kubectl, *args: str, items: bool = False) -> list[dict[str, Any]]:
    """The object, or the objects, in a list; empty where there are none. Raises `KubectlError`."""
    text = kubectl.text("get", *args, "--ignore-not-found", "--output", "json")
    if not text:
        return []
    found = json.loads(text)
    return list(found["items"]) if items else [found]


def _condition(one: dict[str, Any], kind: str) -> str | None:
    conditions = (one.get("status") or {}).get("conditions") or ()
    return next((condition["status"] for condition in conditions if condition["type"] == kind), None)


def _at_least(version: str, needed: tuple[int, int]) -> bool:
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= needed
