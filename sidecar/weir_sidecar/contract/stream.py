"""The config stream: what a pod's sidecar and the control plane tell each other while the pod runs.

One TLS connection, HTTP/1.1, both bodies chunked and open at the same time (RFC 9112, section 7.1):

    POST /v1/namespaces/NAMESPACE/pods/NAME/stream
    Authorization: Bearer TOKEN        a service account token of this very pod, audience `AUDIENCE`
    Content-Type: application/x-ndjson

Each line of the request is an `Up` message, the first a `Hello`; each line of the answer a `Down` message, or empty: the
server's way to say, each `PING_SECONDS`, that it is there. A sidecar that hears nothing for `SILENCE_SECONDS` hangs up. It
says something itself at least each `HEALTH_SECONDS`; the server gives it `SILENCE_SECONDS` more. Refusals are 401 (no valid
token), 403 (another pod's), 404 (no such pod, or not captured) and 503 (later), with a JSON body {"error": text}.
"""

import msgspec

from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.contract.trust import Said, Told

AUDIENCE = "stream.weir.dev"
PING_SECONDS = 15.0
SILENCE_SECONDS = 45.0
HEALTH_SECONDS = 60.0
HEARSAY_SECONDS = 600.0
"""A bypass that one pod learned is told to the others for so much longer than it lasts. Each believes it for a part of that of
its own choosing: so the pod that learned it tries again first, and the others hear how that went, instead of all trying."""
MAX_LINE = 1 << 20
"""Bytes of one message; the peer of a longer one hangs up."""


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", tag_field="type"):
    """A line of the stream."""


class Hello(_Message, frozen=True, tag="hello", omit_defaults=True):
    """The sidecar is there, and runs this."""

    version: str
    """Weir's version."""
    revision: str
    """Of the config that is in force."""
    kernel_revision: str
    """Of the config whose rules the kernel has: they are loaded when the pod starts."""
    captured: bool = True
    """Whether there are rules: in CNI mode a pod may have started without, or have lost them. Told where it is not so."""


class Applied(_Message, frozen=True, tag="applied"):
    """A config was taken, or was not."""

    revision: str
    problem: str | None = None
    """Why it was not taken; the last good one stays."""
    after_restart: tuple[str, ...] = ()
    """Fields that differ and count only when the pod starts anew, such as `capture.mode`."""


class Trust(_Message, frozen=True, tag="trust"):
    """Entries of the trust cache: all after a Hello, later those whose state changed."""

    entries: tuple[Told, ...]


class Health(_Message, frozen=True, tag="health", omit_defaults=True):
    """How the sidecar is. Counters since it started."""

    flows_open: int
    flows: dict[str, int]
    """By decision."""
    records_lost: int
    heartbeats_missed: int
    captured: bool = True
    """As in the `Hello`. A change is told at once."""


class NewConfig(_Message, frozen=True, tag="config"):
    """The config from now on; sent first, and whenever it changes. Not sent if the Hello's revision is current."""

    config: SidecarConfig


class Exceptions(_Message, frozen=True, tag="exceptions"):
    """What people said and what other pods of the workload learned. Always all of it: what is gone no longer holds."""

    said: tuple[Said, ...] = ()
    learned: tuple[Told, ...] = ()


type Up = Hello | Applied | Trust | Health
type Down = NewConfig | Exceptions
