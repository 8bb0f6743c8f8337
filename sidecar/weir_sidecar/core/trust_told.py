"""Entries of the trust cache as they are told to the control plane, and as they come back from other pods. Pure."""

from collections.abc import Iterable

import msgspec

from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.trust import Said, State, Told, Word
from weir_sidecar.core.trust_entry import Entry, reason_for
from weir_sidecar.core.trust_table import Event, after

_SAID = {Word.APPROVE: Event.APPROVE, Word.PIN: Event.PIN}


def told(entry: Entry) -> Told:
    """What others are told of an entry."""
    return Told(**{name: getattr(entry, name) for name in Told.__struct_fields__})


def heard(about: Told) -> Entry | None:
    """What another pod's entry means here: a bypass until the time it says. None: nothing follows from it."""
    if about.state is not State.BYPASSED or about.expires_at is None:
        return None
    state = after(State.UNKNOWN, Event.HEARD)
    certificate = about.reason is Reason.CLIENT_CERTIFICATE_REQUESTED
    return Entry(
        host=about.host,
        uid=about.uid,
        ja4=about.ja4,
        state=state,
        reason=about.reason if certificate else reason_for(about.host, state),
        alert=about.alert,
        failures=about.failures,
        successes=about.successes,
        bypasses=about.bypasses,
        first_seen=about.first_seen,
        last_seen=about.last_seen,
        expires_at=about.expires_at,
    )


def prolonged(about: Told, patience: float, latest: float) -> Told:
    """An entry whose bypass lasts `patience` longer, but not longer than until `latest`; seconds."""
    if about.expires_at is None:
        return about
    return msgspec.structs.replace(about, expires_at=min(about.expires_at + patience, max(latest, about.expires_at)))


def spoken(said: Said, now: float) -> Entry | None:
    """The entry that a person's word makes; None for one that is an act and no state."""
    event = _SAID.get(said.word)
    if event is None:
        return None
    state = after(State.UNKNOWN, event)
    reason = reason_for(said.host, state)
    return Entry(host=said.host, uid=said.uid, ja4=said.ja4, state=state, reason=reason, first_seen=now, last_seen=now)


class Teller:
    """Remembers what was told, so that only changes of state are told after the first time."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, int | None, str | None], tuple[State, float | None]] = {}

    def everything(self, entries: Iterable[Entry]) -> list[Told]:
        """All that is worth telling, to somebody who knows nothing yet."""
        self._told.clear()
        return self.changes(entries)

    def changes(self, entries: Iterable[Entry]) -> list[Told]:
        """What has another state, or another end of its bypass, than when it was last told.

        Trust that nothing ever spoke against is not worth telling. What is not there any more is told by nobody. Of two
        entries with one name (a word, and what the upstream asks of every app) the first is told: it is the one that counts.
        """
        before, self._told = self._told, {}
        fresh = []
        for entry in entries:
            key, value = (entry.host, entry.uid, entry.ja4), (entry.state, entry.expires_at)
            if key in self._told or (key not in before and not _worth_telling(entry)):
                continue
            self._told[key] = value
            if before.get(key) != value:
                fresh.append(told(entry))
        return fresh


def _worth_telling(entry: Entry) -> bool:
    return entry.state is not State.UNKNOWN and (entry.state is not State.TRUSTED or entry.failures > 0)


def batches(entries: list[Told], size: int = 512) -> Iterable[tuple[Told, ...]]:
    """In portions that fit into one message each (`contract.stream.MAX_LINE`); at least one, which may be empty."""
    for start in range(0, max(len(entries), 1), size):
        yield tuple(entries[start : start + size])
