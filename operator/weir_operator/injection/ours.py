"""What of a pod is Weir's: two containers, some volumes, and the mounts of the public one in the other containers."""

import re
from collections.abc import Mapping
from typing import Any

from weir_operator.cluster.facts import INIT, SIDECAR
from weir_operator.injection.shape import listed
from weir_sidecar.contract import pod as paths

POD = "weir-pod"
TRUST = "weir-trust"
INFO = "weir-info"
TOKEN = "weir-token"  # noqa: S105 - the name of a volume
AUTHORITY = "weir-ca"
CREDENTIALS = "weir-credentials"
_SOURCES = {
    POD: "emptyDir",
    TRUST: "emptyDir",
    INFO: "downwardAPI",
    TOKEN: "projected",
    AUTHORITY: "secret",
    CREDENTIALS: "projected",
}
_ROOTS = re.compile(r"weir-roots-\d+", re.ASCII)


def roots_volume(number: int) -> str:
    """The volume of the ConfigMap that is the `number`th of those with roots."""
    return f"weir-roots-{number}"


def is_our_container(container: Mapping[str, Any]) -> bool:
    """Whether an init container was put in by us, maybe by another version of us: it has our private volume."""
    return container["name"] in (INIT, SIDECAR) and any(
        (mount["name"], mount["mountPath"]) == (POD, paths.PRIVATE) for mount in listed(container, "volumeMounts")
    )


def is_reserved_volume(name: str) -> bool:
    """Whether a volume of this name can only be ours."""
    return name in _SOURCES or _ROOTS.fullmatch(name) is not None


def is_our_volume(volume: Mapping[str, Any]) -> bool:
    """Whether a volume was put in by us."""
    name: str = volume["name"]
    source = "configMap" if _ROOTS.fullmatch(name) else _SOURCES.get(name)
    return source is not None and source in volume


def without_ours(pod: Mapping[str, Any]) -> dict[str, Any]:
    """The pod without our containers and volumes. What we did to its other containers is still done."""
    spec = pod.get("spec") or {}
    own = {
        "initContainers": [one for one in listed(spec, "initContainers") if not is_our_container(one)],
        "volumes": [one for one in listed(spec, "volumes") if not is_our_volume(one)],
    }
    return {**pod, "spec": {**spec, **own}}
