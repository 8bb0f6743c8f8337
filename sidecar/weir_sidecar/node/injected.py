"""Whether a pod that claims to be captured was put together by Weir's webhook. Pure.

Anybody who may create pods may write our label and annotation, too. What the agent hands over is worth NET_RAW in the pod,
so a namespace whose Pod Security level forbids that must not get it by claiming. The sidecar has to be ours, and the only
one with the proxy's user as far as the spec says. What it does not say is the USER of another container's image: so the
hand-over has a key too, whose place has to be out of the others' reach.
"""

from collections.abc import Iterator, Mapping, Sequence
from posixpath import normpath
from typing import Any

from weir_sidecar.contract.config import Identity
from weir_sidecar.contract.pod import PRIVATE

SIDECAR, INIT = "weir-sidecar", "weir-init"
_COMMANDS = {SIDECAR: ["python", "-m", "weir_sidecar"], INIT: ["python", "-m", "weir_sidecar.podsetup"]}
_FIELDS = ("envFrom", "lifecycle", "workingDir")
# Other webhooks add variables and tokens to all containers of a pod. These variables would have our program load other code,
# and so would mounts elsewhere.
_LOADING = ("PYTHON", "LD_", "OPENSSL_", "GLIBC_", "GCONV_PATH", "LOCPATH", "PATH")
_MOUNTS = ("/run/", "/var/run/")
_PARTS = ("subPath", "subPathExpr")


def repository(image: str) -> str:
    """An image's name without tag and digest: pods outlive the version that they were made by."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def problems(spec: Mapping[str, Any], identity: Identity, image: str) -> Iterator[str]:
    """What is not as the webhook makes it, in words; nothing, when all is. `image` is the installation's sidecar."""
    init = spec.get("initContainers") or []
    if [one.get("name") for one in init[:2]] != [INIT, SIDECAR]:
        yield f"initContainers do not begin with {INIT} and {SIDECAR}"
        return
    for container in init[:2]:
        yield from _ours(container, identity, image)
    pod_user = (spec.get("securityContext") or {}).get("runAsUser")
    others = (*init[2:], *(spec.get("containers") or ()), *(spec.get("ephemeralContainers") or ()))
    for container in others:
        if (container.get("securityContext") or {}).get("runAsUser", pod_user) == identity.uid:
            yield f"container {container.get('name')!r} runs as user {identity.uid}, which is the proxy's"
    yield from _private(spec, init[:2], others)


def _private(
    spec: Mapping[str, Any], ours: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """The key of the hand-over is in a volume that ends with the pod, and that our containers alone have."""
    names = {one["name"] for one in spec.get("volumes") or () if "emptyDir" in one}
    for container in ours:
        mounts = [one for one in container.get("volumeMounts") or () if _is_in(one["mountPath"], PRIVATE)]
        names = {one["name"] for one in mounts if one["name"] in names}
        if len(mounts) != 1 or not names or mounts[0]["mountPath"] != PRIVATE or any(map(mounts[0].get, _PARTS)):
            yield f"container {container['name']!r} has at {PRIVATE} something else than the one emptyDir"
    for container in others:
        if shared := names.intersection(one["name"] for one in container.get("volumeMounts") or ()):
            yield f"container {container.get('name')!r} mounts {', '.join(map(repr, shared))}, which is Weir's own"


def _is_in(path: str, directory: str) -> bool:
    return f"{normpath(path)}/".startswith(f"{directory}/")


def _ours(container: Mapping[str, Any], identity: Identity, image: str) -> Iterator[str]:
    name = container["name"]
    if repository(container.get("image", "")) != repository(image):
        yield f"container {name!r} has the image {container.get('image')!r}, and this installation's is {image!r}"
    if container.get("command") != _COMMANDS[name]:
        yield f"container {name!r} has the command {container.get('command')!r}"
    if (container.get("securityContext") or {}).get("runAsUser") != identity.uid:
        yield f"container {name!r} does not run as user {identity.uid}"
    strange = [one["name"] for one in container.get("env") or () if one["name"].startswith(_LOADING)]
    strange += [field for field in _FIELDS if container.get(field)]
    strange += [
        mount["mountPath"]
        for mount in container.get("volumeMounts") or ()
        if not mount["mountPath"].startswith(_MOUNTS) or ".." in mount["mountPath"]
    ]
    if strange:
        yield f"container {name!r} has {', '.join(map(repr, strange))}, which are not Weir's"
