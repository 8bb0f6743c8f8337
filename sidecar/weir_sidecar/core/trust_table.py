"""Every transition of a trust entry, in one table.

The law:

1. Every pair of state and event has exactly one row, and no code outside this file chooses a state.
2. BYPASSED is entered by DISTRUSTED (conclusive evidence) or, from PROBATION, by a mere SUSPECTED: an app that has
   failed before gets one probe, not a new trial.
3. Only the clock leads from BYPASSED to PROBATION, and only a probe (or a straggler's first byte) from there to TRUSTED.
4. SUSPECTED never harms a TRUSTED entry: health checks and cancelled connections look the same.
5. PINNED and APPROVED are entered and left by a person's word alone; nothing seen on the wire changes them.
6. HEARD (another pod of the workload bypasses) moves only what this pod has not settled itself: never what it trusts,
   never what it bypasses or probes already. No entry keeps that state: it holds while it is told (`trust_heard`).

    UNKNOWN -> TRUSTED | FAILING -> BYPASSED(until) -> PROBATION -> TRUSTED | BYPASSED(longer)
"""

from enum import StrEnum

from weir_sidecar.contract.trust import State


class Event(StrEnum):
    """What happens to an entry, weighed: whether suspicions suffice has been decided before (`trust_entry.weigh`)."""

    TRUSTED = "trusted"
    SUSPECTED = "suspected"
    DISTRUSTED = "distrusted"
    NOTHING = "nothing"
    EXPIRED = "expired"
    HEARD = "heard"
    PIN = "pin"
    APPROVE = "approve"
    FORGET = "forget"


PERSONAL = frozenset({State.PINNED, State.APPROVED})

_BY_A_PERSON = {Event.PIN: State.PINNED, Event.APPROVE: State.APPROVED, Event.FORGET: State.UNKNOWN}

TRANSITIONS: dict[State, dict[Event, State]] = {
    State.UNKNOWN: {
        Event.TRUSTED: State.TRUSTED,
        Event.SUSPECTED: State.FAILING,
        Event.DISTRUSTED: State.BYPASSED,
        Event.NOTHING: State.UNKNOWN,
        Event.EXPIRED: State.UNKNOWN,
        Event.HEARD: State.BYPASSED,
        **_BY_A_PERSON,
    },
    State.TRUSTED: {
        Event.TRUSTED: State.TRUSTED,
        Event.SUSPECTED: State.TRUSTED,
        Event.DISTRUSTED: State.BYPASSED,
        Event.NOTHING: State.TRUSTED,
        Event.EXPIRED: State.TRUSTED,
        Event.HEARD: State.TRUSTED,
        **_BY_A_PERSON,
    },
    State.FAILING: {
        Event.TRUSTED: State.TRUSTED,
        Event.SUSPECTED: State.FAILING,
        Event.DISTRUSTED: State.BYPASSED,
        Event.NOTHING: State.FAILING,
        Event.EXPIRED: State.FAILING,
        Event.HEARD: State.BYPASSED,
        **_BY_A_PERSON,
    },
    State.BYPASSED: {
        Event.TRUSTED: State.TRUSTED,  # intercepted before the bypass began, and it speaks after all
        Event.SUSPECTED: State.BYPASSED,
        Event.DISTRUSTED: State.BYPASSED,
        Event.NOTHING: State.BYPASSED,
        Event.EXPIRED: State.PROBATION,
        Event.HEARD: State.BYPASSED,
        **_BY_A_PERSON,
    },
    State.PROBATION: {
        Event.TRUSTED: State.TRUSTED,
        Event.SUSPECTED: State.BYPASSED,
        Event.DISTRUSTED: State.BYPASSED,
        Event.NOTHING: State.PROBATION,
        Event.EXPIRED: State.PROBATION,
        Event.HEARD: State.PROBATION,
        **_BY_A_PERSON,
    },
    State.PINNED: {
        Event.TRUSTED: State.PINNED,
        Event.SUSPECTED: State.PINNED,
        Event.DISTRUSTED: State.PINNED,
        Event.NOTHING: State.PINNED,
        Event.EXPIRED: State.PINNED,
        Event.HEARD: State.PINNED,
        **_BY_A_PERSON,
    },
    State.APPROVED: {
        Event.TRUSTED: State.APPROVED,
        Event.SUSPECTED: State.APPROVED,
        Event.DISTRUSTED: State.APPROVED,
        Event.NOTHING: State.APPROVED,
        Event.EXPIRED: State.APPROVED,
        Event.HEARD: State.APPROVED,
        **_BY_A_PERSON,
    },
}


def after(state: State, event: Event) -> State:
    """The state that follows. Total: every pair has a row."""
    return TRANSITIONS[state][event]
