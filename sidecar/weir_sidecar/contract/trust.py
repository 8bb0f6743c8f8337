"""What is known of (host, app), as sidecar and control plane name it: the states of a trust entry, and an entry told.

Which state follows which is `core.trust_table`'s; this is only the vocabulary.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from weir_sidecar.contract.flow import Reason


class State(StrEnum):
    """What is known of (host, app)."""

    UNKNOWN = "unknown"
    TRUSTED = "trusted"
    """The client has sent application data through an intercepted connection."""
    FAILING = "failing"
    """Suspicions, not yet enough; still intercepted."""
    BYPASSED = "bypassed"
    """The client distrusts the CA: passed through until a time."""
    PROBATION = "probation"
    """That time is over: one flow is intercepted as a probe, the others are passed through."""
    PINNED = "pinned"
    """A person said: never intercept."""
    APPROVED = "approved"
    """A person said: intercept, whatever was seen."""


class Word(StrEnum):
    """What a person may say about (host, app)."""

    APPROVE = "approve"
    PIN = "pin"
    FORGET = "forget"


class Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a trust cache, as it is told to others. Times: seconds since the epoch.

    `host` `*` is the app as such. `uid` and `ja4` None: not known.
    """

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    state: State
    uid: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] | None = None
    ja4: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    reason: Reason | None = None
    alert: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    failures: Annotated[int, msgspec.Meta(ge=0)] = 0
    successes: Annotated[int, msgspec.Meta(ge=0)] = 0
    bypasses: Annotated[int, msgspec.Meta(ge=0)] = 0
    first_seen: float = 0.0
    last_seen: float = 0.0
    expires_at: float | None = None


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's word, given to the control plane. `uid` and `ja4` None: any."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    word: Word
    uid: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] | None = None
    ja4: Annotated[str, msgspec.Meta(max_length=64)] | None = None
