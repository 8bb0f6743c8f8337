"""What keeps a pod from being captured, told all at once; and what its owner should know."""

from collections.abc import Iterator, Mapping
from typing import Any

from weir_operator.cluster.facts import INIT, SIDECAR
from weir_operator.injection import meshes, ours, stores
from weir_operator.injection.shape import containers, listed, pod_security, security
from weir_sidecar.contract import pod as paths
from weir_sidecar.contract.config import SidecarConfig

_POD = "spec.securityContext"
_RULERS = ("ALL", "NET_ADMIN", "SYS_ADMIN")
"""Capabilities with which a container can unload the rules that capture it."""


def problems(pod: Mapping[str, Any], config: SidecarConfig) -> Iterator[str]:
    """Why this pod cannot be captured. `pod` is without our containers and volumes; what is found with their names is not ours."""
    yield from _identities(pod, config)
    taken = _own_ports(config)
    for container in containers(pod):
        yield from _container(container)
        yield from _ports(container, taken)
    for volume in listed(pod["spec"], "volumes"):
        if ours.is_reserved_volume(volume["name"]):
            yield f"spec.volumes: found {volume['name']!r}, which is Weir's; give it another name"


def warnings(pod: Mapping[str, Any]) -> Iterator[str]:
    """What weakens the capture of this pod, or its sidecar."""
    if pod["spec"].get("shareProcessNamespace"):
        yield (
            "spec.shareProcessNamespace: found true: a container that runs as root can stop Weir's proxy; what happens"
            " then is what failureMode says"
        )
    security_context = pod_security(pod)
    users = {_user(pod, one) for one in containers(pod)}
    if "runAsUser" in security_context and "fsGroup" not in security_context and users == {0}:
        yield (
            f"{_POD}.runAsUser: found 0 for every container: Kubernetes lets only root read the sidecar's token, so this pod"
            " gets no policy changes until it is started anew; set runAsUser on the containers instead, or an fsGroup"
        )

    for container in containers(pod):
        power = _power(container)
        if power is not None and container["name"] not in meshes.CONTAINERS:
            yield (
                f"container {container['name']!r}: {power}: it can unload the rules that capture this pod; see"
                " docs/threat-model.md"
            )


def _power(container: Mapping[str, Any]) -> str | None:
    """What of a container's rights is enough to unload the rules."""
    context = security(container)
    if context.get("privileged"):
        return "privileged"
    added = (context.get("capabilities") or {}).get("add") or ()
    return next((f"capability {name}" for name in added if name.removeprefix("CAP_") in _RULERS), None)


def _identities(pod: Mapping[str, Any], config: SidecarConfig) -> Iterator[str]:
    uid, gid = config.identity.uid, config.identity.gid
    fields = {"runAsUser": uid, "runAsGroup": gid}
    contexts = [(_POD, pod_security(pod))]
    contexts += [(f"container {one['name']!r}: securityContext", security(one)) for one in containers(pod)]
    for where, context in contexts:
        for field, reserved in fields.items():
            if context.get(field) == reserved:
                yield _reserved_id(f"{where}.{field}", reserved)
    context = pod_security(pod)
    if context.get("fsGroup") == gid:
        yield _reserved_id(f"{_POD}.fsGroup", gid)
    if gid in (context.get("supplementalGroups") or ()):
        yield _reserved_id(f"{_POD}.supplementalGroups", gid)


def _reserved_id(where: str, number: int) -> str:
    return f"{where}: found {number}, which is the proxy's own and exempt from capture; any other number is allowed"


def _container(container: Mapping[str, Any]) -> Iterator[str]:
    name = container["name"]
    if name in (INIT, SIDECAR):
        yield f"container {name!r}: the name is Weir's; give it another one"
    for mount in listed(container, "volumeMounts"):
        if ours.is_reserved_volume(mount["name"]):
            if not _is_our_mount(mount):
                yield f"container {name!r}: volumeMounts: found the volume {mount['name']!r}, which is Weir's; take it out"
        elif stores.is_reserved_mount(mount):
            yield (
                f"container {name!r}: volumeMounts: found mountPath {mount['mountPath']!r}; any path outside"
                f" {paths.RUN} is allowed"
            )


def _is_our_mount(mount: Mapping[str, Any]) -> bool:
    place = mount["mountPath"]
    return (
        mount["name"] == ours.TRUST and bool(mount.get("readOnly")) and (place == paths.TRUST or place in stores.PLACES)
    )


def _own_ports(config: SidecarConfig) -> set[tuple[str, int | None]]:
    ports = config.ports
    return {
        ("TCP", ports.tcp),
        ("TCP", ports.admin),
        ("TCP", ports.probe),
        ("UDP", ports.udp),
        ("UDP", ports.heartbeat),
    }


def _ports(container: Mapping[str, Any], taken: set[tuple[str, int | None]]) -> Iterator[str]:
    for port in listed(container, "ports"):
        if (port.get("protocol", "TCP"), port["containerPort"]) in taken:
            yield (
                f"container {container['name']!r}: ports: found containerPort {port['containerPort']}, where Weir's proxy"
                " listens in this pod; let the application listen on another one"
            )


def _user(pod: Mapping[str, Any], container: Mapping[str, Any]) -> object:
    return security(container).get("runAsUser", pod_security(pod).get("runAsUser"))
