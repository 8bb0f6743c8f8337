"""What OpenTelemetry calls a pod: https://opentelemetry.io/docs/specs/semconv/non-normative/k8s-attributes/."""

from collections.abc import Callable, Mapping
from typing import Any

from weir_cli.cluster.kubectl import Kubectl, KubectlError
from weir_operator.cluster.facts import workload_of

_NAME = "resource.opentelemetry.io/service.name"
_LABELS = ("app.kubernetes.io/instance", "app.kubernetes.io/name")


def attributes_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The attributes of what a pod sends: its service is what it is annotated or labelled with, or else its workload."""
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    named = (annotations.get(_NAME), *(labels.get(label) for label in _LABELS))
    return {
        "service.name": next((name for name in named if name), None) or workload_of(metadata).name,
        "k8s.namespace.name": metadata["namespace"],
        "k8s.pod.name": metadata["name"],
    }


def attributes(kubectl: Kubectl, pod: str, warn: Callable[[str], object]) -> dict[str, str]:
    """The same for a pod's name. `warn` is told where the pod itself cannot be had: it may be gone, and its records are not."""
    try:
        return attributes_of(kubectl.json("get", "pod", pod)["metadata"])
    except KubectlError as error:
        warn(f"{error}; the spans of {pod} have its own name as their service")
    return {"service.name": pod, "k8s.namespace.name": kubectl.current_namespace(), "k8s.pod.name": pod}
