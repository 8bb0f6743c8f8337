"""Policy objects of a cluster, read through kubectl."""

from typing import Any

from weir_cli.cluster.kubectl import Kubectl

CLUSTER_KINDS = "clusterinterceptionpolicies.weir.dev,clustertrustpolicies.weir.dev"
NAMESPACED_KINDS = "interceptionpolicies.weir.dev,trustpolicies.weir.dev"


def all_of(kubectl: Kubectl, namespace: str | None) -> list[dict[str, Any]]:
    """All cluster policies, and those of a namespace; None: of all namespaces. Raises `KubectlError`."""
    where = ("--all-namespaces",) if namespace is None else ("--namespace", namespace)
    found: list[dict[str, Any]] = kubectl.json("get", CLUSTER_KINDS)["items"]
    found += kubectl.json("get", NAMESPACED_KINDS, *where)["items"]
    return found
