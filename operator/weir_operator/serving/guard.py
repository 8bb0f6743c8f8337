"""What may not be done to a pod that is captured: what would let its user steer the proxy. Pure.

Of a pod's spec only images and a few numbers can change while it runs, and ephemeral containers can be added; of its
metadata everything can. RBAC cannot tell our containers and annotations from the pod's own, so this has to.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from weir_operator.cluster.facts import CAPTURED_LABEL, CONFIG_ANNOTATION, INIT, SIDECAR, pod_facts
from weir_operator.injection import ours
from weir_operator.injection.inject import POLICIES_ANNOTATION
from weir_sidecar.contract.config import Identity

OURS = (INIT, SIDECAR)
CAPABILITIES = ("ALL", "NET_ADMIN", "NET_RAW")
"""With these a container can unload the rules or write frames that they do not see; docs/threat-model.md."""


def objections(old: Mapping[str, Any], new: Mapping[str, Any], identity: Identity) -> list[str]:
    """Why this change of a pod is refused; empty: it is not. A pod that is not captured may be changed as one likes."""
    if not pod_facts(old).captured:
        return []
    return [*_metadata(old, new), *_images(old, new), *_added(old, new, identity)]


def _metadata(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for part, key in (
        ("labels", CAPTURED_LABEL),
        ("annotations", CONFIG_ANNOTATION),
        ("annotations", POLICIES_ANNOTATION),
    ):
        before, after = ((pod["metadata"].get(part) or {}).get(key) for pod in (old, new))
        if before != after:
            yield (
                f"metadata.{part}[{key}] of a captured pod does not change: it says what the pod was started with;"
                " change the policy instead, or start the pod anew"
            )


def _images(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, after = (_ours(pod) for pod in (old, new))
    for name, image in before.items():
        if after.get(name) != image:
            yield (
                f"the image of container {name} does not change while the pod runs: found {after.get(name)!r};"
                f" allowed: {image!r}; start the pod anew to have another version"
            )


def _ours(pod: Mapping[str, Any]) -> dict[str, Any]:
    containers = (pod.get("spec") or {}).get("initContainers") or ()
    return {one["name"]: one.get("image") for one in containers if one["name"] in OURS}


def _added(old: Mapping[str, Any], new: Mapping[str, Any], identity: Identity) -> Iterator[str]:
    before, after = ((pod.get("spec") or {}).get("ephemeralContainers") or () for pod in (old, new))
    known = {one["name"] for one in before}
    for container in after:
        if container["name"] not in known:
            yield from _ephemeral(container, identity)


def _ephemeral(container: Mapping[str, Any], identity: Identity) -> Iterator[str]:
    where = f"ephemeral container {container['name']}"
    context = container.get("securityContext") or {}
    for field, reserved in (("runAsUser", identity.uid), ("runAsGroup", identity.gid)):
        if context.get(field) == reserved:
            yield f"{where}: securityContext.{field} is {reserved}, the proxy's own; allowed: any other"
    if context.get("privileged"):
        yield f"{where}: securityContext.privileged is true, which could unload the proxy's rules; leave it out"
    added = (context.get("capabilities") or {}).get("add") or ()
    for capability in added:
        if capability.upper().removeprefix("CAP_") in CAPABILITIES:
            yield f"{where}: securityContext.capabilities.add has {capability}, with which the proxy can be evaded; leave it out"
    for mount in container.get("volumeMounts") or ():
        public = mount["name"] == ours.TRUST and mount.get("readOnly")
        if ours.is_reserved_volume(mount["name"]) and not public:
            yield f"{where}: mounts the volume {mount['name']}, which is the proxy's own; leave it out"
    if container.get("targetContainerName") in OURS:
        yield f"{where}: targets {container['targetContainerName']}; allowed: the pod's own containers"
