"""What of a new config has to wait for the pod's next start: what the kernel, or the pod's own making, was given. Pure."""

import msgspec

from weir_sidecar.contract import pod
from weir_sidecar.contract.config import SidecarConfig

_HELD = {
    "capture.mode": ("capture", "mode"),
    "capture.ports": ("capture", "ports"),
    "capture.exclude": ("capture", "exclude"),
    "capture.dns.capture": ("capture", "dns", "capture"),
    "capture.quic": ("capture", "quic"),
    "capture.otherUDP": ("capture", "other_udp"),
    "capture.otherProtocols": ("capture", "other_protocols"),
    "capture.connectFirst": ("capture", "connect_first"),
    "capture.beforeNat": ("capture", "before_nat"),
    "failureMode": ("failure_mode",),
    "startup": ("startup",),
    "setup": ("setup",),
    "trust.authorityDir": ("trust", "authority_dir"),
    "ports": ("ports",),
    "identity": ("identity",),
    "heartbeat": ("heartbeat",),
    "marks": ("marks",),
}
"""By the name that people know, where each is. The rules say them, listeners are bound to them, or volumes hold them."""


def hold(new: SidecarConfig, started: SidecarConfig) -> tuple[SidecarConfig, tuple[str, ...]]:
    """`new` with what is held as in `started`, and the names of what differs there.

    A credential of a Secret that is not mounted stays in its rule, which refuses requests as long as there is none.
    Which pod this is does not change with a policy: the workload is always the started one, and the stream as well where
    the new config says none.
    """
    after_restart = []
    for name, path in _HELD.items():
        value = _get(started, path)
        if _get(new, path) != value:
            after_restart.append(name)
            new = _put(new, path, value)
    after_restart += sorted(_secrets(new) - _secrets(started))
    stream = started.stream if new.stream is None else new.stream
    return msgspec.structs.replace(new, workload=started.workload, stream=stream), tuple(after_restart)


def _secrets(config: SidecarConfig) -> set[str]:
    """The keys of Secrets that a config names: the pod has those mounted that its first config named."""
    place = f"{pod.CREDENTIALS}/"
    named = (one.credential.file for rule in config.rules for one in rule.http if one.credential is not None)
    return {f"credentialFrom.secret {file.removeprefix(place)}" for file in named if file.startswith(place)}


def _get(value: object, path: tuple[str, ...]) -> object:
    for name in path:
        value = getattr(value, name)
    return value


def _put[S: msgspec.Struct](whole: S, path: tuple[str, ...], value: object) -> S:
    first, *rest = path
    if rest:
        value = _put(getattr(whole, first), tuple(rest), value)
    return msgspec.structs.replace(whole, **{first: value})
