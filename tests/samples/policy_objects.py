"""Policies as an API server has them."""

from typing import Any


def policy(name: str, namespace: str | None = "shop", **spec: Any) -> dict[str, Any]:
    """An interception policy; without a namespace, a cluster policy."""
    return _object("InterceptionPolicy" if namespace else "ClusterInterceptionPolicy", name, namespace, spec)


def trust_policy(name: str, namespace: str | None = "shop", **spec: Any) -> dict[str, Any]:
    """A trust policy; without a namespace, of the cluster."""
    return _object("TrustPolicy" if namespace else "ClusterTrustPolicy", name, namespace, spec)


def _object(kind: str, name: str, namespace: str | None, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {
        "name": name,
        "uid": f"uid-{name}",
        "resourceVersion": "7",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        "deletionTimestamp": None,
    }
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": "weir.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec, "status": {"x": []}}
