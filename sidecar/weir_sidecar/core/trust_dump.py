"""The trust cache as bytes: versioned JSON, for a restart and for people. Pure."""

from typing import Literal

import msgspec

from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.trust import State
from weir_sidecar.core.trust_entry import Entry, reason_for
from weir_sidecar.core.trust_table import PERSONAL


class TrustDumpError(ValueError):
    """A dump that cannot be read; the text names the field, what was found and what is allowed."""


class Dump(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`authority` names the CA (any stable text) that TRUSTED entries trust; another CA has to earn it anew.

    `heard` is what the control plane told: it holds until it tells something else.
    """

    version: Literal["weir.dev/trust/v1alpha1"] = "weir.dev/trust/v1alpha1"
    workload: str = ""
    authority: str = ""
    entries: tuple[Entry, ...] = ()
    heard: tuple[Entry, ...] = ()


def encode(dump: Dump) -> bytes:
    """Write a dump as JSON."""
    return msgspec.json.encode(dump)


def decode(data: bytes) -> Dump:
    """Read a dump. Raises `TrustDumpError`."""
    try:
        dump = msgspec.json.decode(data, type=Dump)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TrustDumpError(f"trust cache: {error}") from error
    for entry in (*dump.entries, *dump.heard):
        if wrong := _incoherence(entry):
            raise TrustDumpError(f"trust cache: entry for {entry.host!r} in state {entry.state}: {wrong}")
    for entry in dump.heard:
        if entry.state is not State.BYPASSED and entry.state not in PERSONAL:
            raise TrustDumpError(
                f"trust cache: {entry.host!r} was heard of in state {entry.state}; bypasses and words are"
            )
    return dump


def _incoherence(entry: Entry) -> str | None:
    """What no cache would have written; msgspec has checked the types."""
    if (entry.state is State.BYPASSED) != (entry.expires_at is not None):
        return f"expires_at is {entry.expires_at}; a bypass has an end, and nothing else has"
    certificate = entry.state is State.BYPASSED and entry.reason is Reason.CLIENT_CERTIFICATE_REQUESTED
    if not certificate and entry.reason is not (expected := reason_for(entry.host, entry.state)):
        return f"reason is {entry.reason}; it must be {expected}"
    return None
