"""What the control plane needs to know of a pod and of a namespace, read from API objects. Small: there are many."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from weir_sidecar.contract.pod import NO_RULES_STATUS

CAPTURED_LABEL = "weir.dev/captured"
"""On captured pods, "true": what watches select by. It claims; the sidecar container in the spec is what counts."""
INJECT_LABEL = "weir.dev/inject"
""" "false" on a pod asks for it to be left alone."""
CONFIG_ANNOTATION = "weir.dev/config"
"""The config that the pod was started with, JSON."""
STATIC_ANNOTATION = "kubernetes.io/config.mirror"
"""On the image of a static pod."""
SIDECAR = "weir-sidecar"
INIT = "weir-init"

_HASH_LABEL = "pod-template-hash"
_CRON_SUFFIX = re.compile(r"-\d{8,}$", re.ASCII)


class Workload(msgspec.Struct, frozen=True):
    """What a pod belongs to, as people name it: the Deployment, not its ReplicaSet; the Pod itself if nothing owns it."""

    kind: str
    name: str


class PodFacts(msgspec.Struct, frozen=True):
    """A pod. `captured`: it has our sidecar. `finished`: it has ended, and no more counts."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    workload: Workload
    captured: bool
    finished: bool
    host_network: bool
    windows: bool
    opted_out: bool
    node: str | None = None
    created: str = ""
    """RFC 3339, in UTC, whole seconds, as API servers write it: text that can be compared."""
    static: bool = False
    """A node makes it from a file of its own; what the API server has is an image of it."""
    running: bool = False
    """All its init containers have ended well, or serve."""
    refused: bool = False
    """Its init container found no rules, and may not let it start without."""


class NamespaceFacts(msgspec.Struct, frozen=True):
    """A namespace and its labels."""

    name: str
    labels: Mapping[str, str]


def namespace_facts(namespace: Mapping[str, Any]) -> NamespaceFacts:
    """Read a v1 Namespace."""
    metadata = namespace["metadata"]
    return NamespaceFacts(metadata["name"], metadata.get("labels") or {})


def pod_facts(pod: Mapping[str, Any]) -> PodFacts:
    """Read a v1 Pod."""
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    labels = metadata.get("labels") or {}
    return PodFacts(
        namespace=metadata.get("namespace", ""),
        name=metadata.get("name", ""),
        uid=metadata.get("uid", ""),
        labels=labels,
        workload=workload_of(metadata),
        captured=any(container["name"] == SIDECAR for container in spec.get("initContainers") or ()),
        finished=(pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") or "deletionTimestamp" in metadata,
        host_network=bool(spec.get("hostNetwork")),
        windows=is_windows(spec),
        opted_out=labels.get(INJECT_LABEL) == "false",
        node=spec.get("nodeName"),
        created=metadata.get("creationTimestamp") or "",
        static=STATIC_ANNOTATION in (metadata.get("annotations") or {}),
        running=(pod.get("status") or {}).get("phase") == "Running",
        refused=_is_refused(pod.get("status") or {}),
    )


def _is_refused(status: Mapping[str, Any]) -> bool:
    """Whether our init container last ended as one that found no rules. While it tries again, its last end counts."""
    for container in status.get("initContainerStatuses") or ():
        if container["name"] == INIT:
            states = (container.get("state") or {}, container.get("lastState") or {})
            ended = [state["terminated"] for state in states if state.get("terminated")]
            return bool(ended) and ended[0].get("exitCode") == NO_RULES_STATUS
    return False


def is_windows(spec: Mapping[str, Any]) -> bool:
    """Whether a pod's spec says that it is for Windows nodes."""
    selector = spec.get("nodeSelector") or {}
    return "windows" in ((spec.get("os") or {}).get("name"), selector.get("kubernetes.io/os"))


def workload_of(metadata: Mapping[str, Any]) -> Workload:
    """What a pod belongs to, from its metadata alone.

    A ReplicaSet of a Deployment is named after it and the pod template's hash, a Job of a CronJob after it and a time.
    """
    owner = next((ref for ref in metadata.get("ownerReferences") or () if ref.get("controller")), None)
    if owner is None:
        return Workload("Pod", metadata.get("name") or metadata.get("generateName", "").rstrip("-"))
    kind, name = owner["kind"], owner["name"]
    suffix = f"-{(metadata.get('labels') or {}).get(_HASH_LABEL)}"
    if kind == "ReplicaSet" and name.endswith(suffix):
        return Workload("Deployment", name.removesuffix(suffix))
    if kind == "Job" and _CRON_SUFFIX.search(name):
        return Workload("CronJob", _CRON_SUFFIX.sub("", name))
    return Workload(kind, name)
