"""One entry of the trust cache: what was seen of (host, app), and how evidence is weighed. Pure; times are arguments.

Times are seconds since the epoch, because entries outlive the process and are shown to people.
"""

from typing import Annotated

import msgspec

from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.trust import State
from weir_sidecar.core.tls_outcome import Outcome
from weir_sidecar.core.trust_table import Event, after

ANY_HOST = "*"
"""The host of entries that are about an app as such."""

APP_HOSTS = 3
"""An app that failed on this many hosts and never succeeded distrusts the CA, not a host."""

OVERTURN = 4
"""Times `failure_threshold`: how many broken-off handshakes in a row, with none completed, overturn proven trust."""

OVERTURN_AFTER = 600.0
"""Seconds since the last success before they do: a minute of cancelled connections is no change of heart."""

type _Count = Annotated[int, msgspec.Meta(ge=0)]


class App(msgspec.Struct, frozen=True):
    """A client: what is not known is left out. JA4 tells two clients apart that share a UID."""

    workload: str | None = None
    uid: int | None = None
    ja4: str | None = None


class Key(msgspec.Struct, frozen=True):
    """What trust is learned about: a host (`*`: the app as such) and an app."""

    host: str
    app: App


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of (host, app). `uid` and `ja4` None: not known, or in a person's word, any.

    `suspicions` are those since the last success, `failures` and `successes` all that were counted. `bypasses` are
    periods of bypass since the last success (`trusted_at`), each twice as long as the one before. `expires_at` ends one.
    """

    host: str
    uid: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] | None = None
    ja4: str | None = None
    state: State = State.UNKNOWN
    reason: Reason | None = None
    alert: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    failures: _Count = 0
    successes: _Count = 0
    suspicions: _Count = 0
    bypasses: _Count = 0
    failed_hosts: tuple[str, ...] = ()
    first_seen: float = 0.0
    last_seen: float = 0.0
    trusted_at: float | None = None
    expires_at: float | None = None


def weigh(entry: Entry, outcome: Outcome, now: float, settings: FailOpen) -> Event:
    """Tell whether an outcome, with what came before it, suffices.

    Never trusted: `failure_threshold` suspicions of either kind do. Time does not weaken them: such an entry has never
    carried a byte. Proven trust is overturned by an alert, or by a long row of broken-off handshakes, but never by
    completed ones: a health check that shares its key with real traffic would do it every night.
    """
    match outcome:
        case Outcome.TRUSTED:
            return Event.TRUSTED
        case Outcome.DISTRUSTED:
            enough = True
        case Outcome.SUSPICION if entry.state is State.TRUSTED:
            enough = _overturned(entry, now, settings)
        case Outcome.SUSPICION | Outcome.WEAK_SUSPICION:
            enough = entry.suspicions + 1 >= settings.failure_threshold
        case Outcome.STAYED | Outcome.NEUTRAL:
            return Event.NOTHING
    return Event.DISTRUSTED if enough and settings.enabled else Event.SUSPECTED


def _overturned(entry: Entry, now: float, settings: FailOpen) -> bool:
    long_ago = entry.trusted_at is None or now - entry.trusted_at >= OVERTURN_AFTER
    return long_ago and entry.suspicions + 1 >= settings.failure_threshold * OVERTURN


def hear(entry: Entry, outcome: Outcome, alert: int | None, now: float, settings: FailOpen) -> tuple[Entry, Event]:
    """Take one outcome into a (host, app) entry; also tells how it was weighed."""
    if outcome is Outcome.WEAK_SUSPICION and entry.state is State.TRUSTED:
        return msgspec.structs.replace(entry, suspicions=0, last_seen=now), Event.NOTHING
    event = weigh(entry, outcome, now, settings)
    match event:
        case Event.TRUSTED:
            return succeed(entry, now), event
        case Event.NOTHING:
            return entry, event
    failed = msgspec.structs.replace(
        entry,
        failures=entry.failures + 1,
        suspicions=entry.suspicions + (outcome is not Outcome.DISTRUSTED),
        alert=alert,
        last_seen=now,
    )
    return move(failed, event, now, settings), event


def hear_of_app(entry: Entry, host: str, event: Event, now: float, settings: FailOpen) -> Entry:
    """Take what happened at one host, as `hear` weighed it, into the entry of the app as such."""
    if event is Event.TRUSTED and entry.state is not State.TRUSTED:
        return succeed(entry, now)
    if event not in (Event.SUSPECTED, Event.DISTRUSTED) or entry.state is State.TRUSTED:
        return entry
    hosts = entry.failed_hosts if host in entry.failed_hosts else (*entry.failed_hosts, host)
    needed = APP_HOSTS if event is Event.DISTRUSTED else max(APP_HOSTS, settings.failure_threshold)
    enough = len(hosts) >= needed and settings.enabled
    failed = msgspec.structs.replace(
        entry, failures=entry.failures + 1, failed_hosts=hosts[-settings.failure_threshold - APP_HOSTS :], last_seen=now
    )
    return move(failed, Event.DISTRUSTED if enough else Event.SUSPECTED, now, settings)


def succeed(entry: Entry, now: float) -> Entry:
    """Application data came: all suspicion is over."""
    state = after(entry.state, Event.TRUSTED)
    return msgspec.structs.replace(
        entry,
        state=state,
        reason=reason_for(entry.host, state),
        alert=None,
        successes=entry.successes + 1,
        suspicions=0,
        bypasses=0,
        failed_hosts=(),
        last_seen=now,
        trusted_at=now,
        expires_at=None,
    )


def move(entry: Entry, event: Event, now: float, settings: FailOpen) -> Entry:
    """Apply an event to the state, and what hangs on the state: the reason and the end of a bypass."""
    state = after(entry.state, event)
    if state is entry.state:
        return entry
    reason = reason_for(entry.host, state)
    if state is not State.BYPASSED:
        return msgspec.structs.replace(entry, state=state, reason=reason, expires_at=None)
    doubled = settings.ttl * 2.0 ** min(entry.bypasses, 64)
    return msgspec.structs.replace(
        entry,
        state=state,
        reason=reason,
        bypasses=entry.bypasses + 1,
        expires_at=now + min(doubled, settings.max_ttl),
    )


def reason_for(host: str, state: State) -> Reason | None:
    """Why flows are treated as the state says; None where nothing but the policy decides."""
    match state:
        case State.BYPASSED | State.PROBATION:
            return Reason.APP_DISTRUSTS_CA if host == ANY_HOST else Reason.CLIENT_DISTRUSTS_CA
        case State.PINNED:
            return Reason.PINNED
        case State.APPROVED:
            return Reason.APPROVED
        case State.UNKNOWN | State.TRUSTED | State.FAILING:
            return None


def bypass_runs(entry: Entry, now: float, settings: FailOpen) -> bool:
    """Tell whether a bypass is still on. One that ends later than any can began before the clock was set back."""
    return entry.expires_at is not None and now < entry.expires_at <= now + settings.max_ttl
