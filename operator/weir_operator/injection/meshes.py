"""Other meshes in a pod. Their proxies are left alone, and send what Weir sends: application, Weir, mesh, world."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from weir_operator.injection.shape import annotations, containers, labels
from weir_sidecar.contract.config import IDRange


class Proxy(msgspec.Struct, frozen=True):
    """A mesh's sidecar in a pod; `uid` exempts what it sends."""

    mesh: str
    uid: int


# By the name of the sidecar: the mesh, and the UID that its redirection exempts unless the container names another.
_SIDECARS = {"istio-proxy": Proxy("Istio", 1337), "linkerd-proxy": Proxy("Linkerd", 2102)}
_HELPERS = ("istio-init", "istio-validation", "linkerd-init", "linkerd-network-validator", "linkerd-proxy-init")
CONTAINERS = frozenset((*_SIDECARS, *_HELPERS))
"""Names of containers that are a mesh's: they keep the environment and files that their mesh gave them."""

_CILIUM_VISIBILITY = "policy.cilium.io/proxy-visibility"


def proxies(pod: Mapping[str, Any]) -> tuple[Proxy, ...]:
    """The meshes whose sidecars are in the pod."""
    found = ((one, _SIDECARS[one["name"]]) for one in containers(pod) if one["name"] in _SIDECARS)
    return tuple(Proxy(proxy.mesh, _uid(container, proxy.uid)) for container, proxy in found)


def uids(pod: Mapping[str, Any]) -> tuple[IDRange, ...]:
    """The users to exempt from capture, so that nothing goes round in circles."""
    return tuple(IDRange(proxy.uid, proxy.uid) for proxy in proxies(pod))


def warnings(pod: Mapping[str, Any]) -> Iterator[str]:
    """What who runs a mesh should know."""
    for proxy in proxies(pod):
        yield (
            f"{proxy.mesh}'s sidecar is in this pod too: what it sends (UID {proxy.uid}) is not captured by Weir; see"
            " docs/injection.md, Other meshes"
        )
    if "ambient" in (labels(pod).get("istio.io/dataplane-mode"), _ambient(pod)):
        yield (
            "Istio's ambient mode and Weir cannot share a pod: its traffic may fail; take the pod out of one of them:"
            ' label istio.io/dataplane-mode: none, or weir.dev/inject: "false"'
        )
    if _CILIUM_VISIBILITY in annotations(pod):
        yield f"{_CILIUM_VISIBILITY}: Cilium sees what Weir sends, not what the application sends"


def _ambient(pod: Mapping[str, Any]) -> str | None:
    return "ambient" if annotations(pod).get("ambient.istio.io/redirection") == "enabled" else None


def _uid(container: Mapping[str, Any], default: int) -> int:
    uid = (container.get("securityContext") or {}).get("runAsUser")
    return default if uid is None else int(uid)
