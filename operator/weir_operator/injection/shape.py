"""Reading a v1 Pod as JSON, where lists and objects that are empty may be missing or null."""

from collections.abc import Iterator, Mapping
from typing import Any


def labels(pod: Mapping[str, Any]) -> Mapping[str, str]:
    """The pod's labels."""
    return (pod.get("metadata") or {}).get("labels") or {}


def annotations(pod: Mapping[str, Any]) -> Mapping[str, str]:
    """The pod's annotations."""
    return (pod.get("metadata") or {}).get("annotations") or {}


def pod_security(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The security context of the pod itself."""
    return (pod.get("spec") or {}).get("securityContext") or {}


def security(container: Mapping[str, Any]) -> Mapping[str, Any]:
    """The security context of a container."""
    return container.get("securityContext") or {}


def listed(within: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    """A field that is a list of objects."""
    return within.get(field) or []


def containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All containers of a pod, in the order in which they start."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from listed(pod.get("spec") or {}, field)
