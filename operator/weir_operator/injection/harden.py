"""What an application's container could get round the proxy with, taken from it: for those who run what they do not trust.

Container runtimes leave root enough of it by default: with SETUID it becomes the proxy's user, with NET_RAW it writes frames
that the rules do not see (capabilities(7), packet(7)).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from weir_operator.injection.shape import security

CAPABILITIES = (
    "BPF",
    "NET_ADMIN",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_MODULE",
    "SYS_PTRACE",
    "SYS_RAWIO",
)


def hardened(container: Mapping[str, Any]) -> dict[str, Any]:
    """The container without these capabilities. Idempotent."""
    context = security(container)
    capabilities = context.get("capabilities") or {}
    dropped = list(capabilities.get("drop") or ())
    if "ALL" not in dropped:
        dropped += [name for name in CAPABILITIES if name not in dropped]
    return {**container, "securityContext": {**context, "capabilities": {**capabilities, "drop": dropped}}}


def problems(container: Mapping[str, Any]) -> Iterator[str]:
    """What the container asks for and cannot have."""
    name, context = container["name"], security(container)
    if context.get("privileged"):
        yield f"container {name!r}: securityContext.privileged: found true, and hardenContainers allows none; leave it out"
    for one in (context.get("capabilities") or {}).get("add") or ():
        if one == "ALL" or one.removeprefix("CAP_") in CAPABILITIES:
            yield (
                f"container {name!r}: securityContext.capabilities.add: found {one}, which hardenContainers does not allow;"
                " leave it out"
            )
