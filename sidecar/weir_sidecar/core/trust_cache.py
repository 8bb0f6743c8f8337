"""The trust cache: who trusts the CA, learned from (host, app), and what to do with the next flow. Pure.

`admit` before the TLS interception of a flow, `report` when its client's side has told something (`tls_outcome`),
`abandon` when the flow ended before the client could. Time is an argument: seconds since the epoch.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.trust import Said, State, Told, Word
from weir_sidecar.core import trust_dump
from weir_sidecar.core.tls_outcome import Outcome
from weir_sidecar.core.trust_entry import (
    ANY_HOST,
    App,
    Entry,
    Key,
    bypass_runs,
    hear,
    hear_of_app,
    move,
)
from weir_sidecar.core.trust_heard import Heard
from weir_sidecar.core.trust_table import PERSONAL, Event
from weir_sidecar.core.trust_told import prolonged

_WEIGHT = {
    Outcome.NEUTRAL: 0,
    Outcome.STAYED: 0,
    Outcome.WEAK_SUSPICION: 1,
    Outcome.SUSPICION: 1,
    Outcome.DISTRUSTED: 2,
    Outcome.TRUSTED: 3,
}


class TrustCacheFullError(Exception):
    """Only people's words are left in a full cache, and those are never dropped to make room."""


class Ticket(msgspec.Struct, eq=False):
    """An intercepted connection, as the cache knows it: hand it back with what was seen. Losing it is harmless."""

    key: Key
    weight: int = 0
    """The heaviest outcome counted so far: a connection counts as one failure at most, and a success settles it."""


class InterceptNow(msgspec.Struct, frozen=True):
    """Intercept. `reason`: approved, probation, or None where the policy's own reason stands."""

    reason: Reason | None
    ticket: Ticket


class Bypass(msgspec.Struct, frozen=True):
    """Pass through, for `reason`."""

    reason: Reason


class Wait(msgspec.Struct, frozen=True):
    """Ask again when `report` or `abandon` returns `key`, at the latest at `until`."""

    key: Key
    until: float


type Admission = InterceptNow | Bypass | Wait


class _Case(msgspec.Struct, eq=False):
    """An entry, and what is in flight for it: the canary that holds others up until a time."""

    entry: Entry
    canary: Ticket | None = None
    until: float = 0.0
    open: bool = False
    """A canary's handshake was completed and its client stayed: nobody waits until a failure says otherwise."""


class TrustCache:
    """What was learned, what people said, and what is in flight, in one pod.

    `canary_wait` (seconds) is how long one canary holds up the others; a flow waits for `failure_threshold` canaries
    at most. `authority` names the CA. `settings` may be replaced at any time. `revision` grows whenever a state
    changes: the time to save.
    """

    def __init__(
        self, settings: FailOpen, workload: str = "", *, authority: str = "", canary_wait: float = 5.0
    ) -> None:
        self.settings = settings
        self.revision = 0
        self._workload = workload
        self._authority = authority
        self._canary_wait = canary_wait
        self._learned: dict[Key, _Case] = {}  # the least recently heard of first
        self._said: dict[Key, Entry] = {}
        self._said_hosts: frozenset[str] = frozenset()
        self._certificates: dict[str, Entry] = {}
        self._heard = Heard(workload)

    def admit(self, host: str, uid: int | None, ja4: str | None, now: float, since: float | None = None) -> Admission:
        """What to do with a flow that the policy wants intercepted.

        `since` is when it was first asked for this flow, if it had to wait.
        """
        key = Key(host, App(self._workload, uid, ja4))
        if (self._said or self._heard.words) and (word := self._word_on(key)) is not None:
            if word.state is State.PINNED:
                return Bypass(Reason.PINNED)
            return InterceptNow(Reason.APPROVED, Ticket(key))
        if host in self._certificates and self._certificate_needed(host, now):
            return Bypass(Reason.CLIENT_CERTIFICATE_REQUESTED)
        case = self._learned.get(key)
        if (case is not None and case.entry.state is State.TRUSTED) or not self.settings.enabled:
            return InterceptNow(None, Ticket(key))
        return self._admit_unproven(key, now, now if since is None else since)

    def report(self, ticket: Ticket, outcome: Outcome, alert: int | None, now: float) -> tuple[Key, ...]:
        """Take in what a connection told; returns the keys whose waiting flows should ask again.

        May be called several times for one ticket, as its connection goes on.
        """
        revision = self.revision
        if _WEIGHT[outcome] > ticket.weight:
            ticket.weight = _WEIGHT[outcome]
            self._learn(ticket.key, outcome, alert, now)
        released = self._release(ticket, stayed=outcome is Outcome.STAYED)
        return self._watched(ticket.key) if revision != self.revision else released

    def abandon(self, ticket: Ticket) -> tuple[Key, ...]:
        """Give a ticket back that will tell nothing: the upstream failed, or the client left early."""
        return self._release(ticket, stayed=False)

    def approve(self, host: str, uid: int | None, ja4: str | None, now: float) -> None:
        """Intercept from now on, whatever was seen. None: every app of the host; host `*`: the app, on every host."""
        self._say(host, uid, ja4, Event.APPROVE, now)

    def pin(self, host: str, uid: int | None, ja4: str | None, now: float) -> None:
        """Never intercept from now on. Arguments as for `approve`. Both raise `TrustCacheFullError`."""
        self._say(host, uid, ja4, Event.PIN, now)

    def adopt(self, said: Sequence[Said], learned: Iterable[Told], now: float, patience: float = 0.0) -> None:
        """Take what the control plane tells now; what it told before and does not tell any more no longer holds.

        Words said here (`approve`, `pin`) stay, and come first where both say something about the same. A word that is
        new makes what was learned about it forgotten, as if it had been said here. A bypass of another pod is believed for
        `patience` (seconds) beyond its end.
        """
        believed = [prolonged(one, patience, now + self.settings.max_ttl) for one in learned]
        for word in self._heard.replace(said, believed, self.settings.max_entries, now):
            for key in [key for key in self._learned if _covers(word.host, word.uid, word.ja4, key)]:
                del self._learned[key]
            if word.word is Word.FORGET and word.uid is None and word.ja4 is None:
                self._certificates.pop(word.host, None)
        self.revision += 1

    def forget(self, host: str, uid: int | None, ja4: str | None) -> int:
        """Drop all that was learned or said about what the arguments cover (see `approve`); returns how many entries."""
        gone = [key for key in (*self._learned, *self._said) if _covers(host, uid, ja4, key)]
        for key in gone:
            self._learned.pop(key, None)
            self._said.pop(key, None)
        hosts = [name for name in self._certificates if uid is None and ja4 is None and host in (name, ANY_HOST)]
        for name in hosts:
            del self._certificates[name]
        self._said_changed()
        return len(gone) + len(hosts)

    def remember_client_certificate(self, host: str, now: float) -> None:
        """The upstream asked for a client certificate, which only the client has: pass its flows through for a TTL."""
        known = self._certificates.pop(host, None)
        if known is None and not self._make_room():
            return
        self._certificates[host] = Entry(
            host=host,
            state=State.BYPASSED,
            reason=Reason.CLIENT_CERTIFICATE_REQUESTED,
            first_seen=now if known is None else known.first_seen,
            last_seen=now,
            expires_at=now + min(self.settings.ttl, self.settings.max_ttl),
        )
        self.revision += 1

    def entries(self, now: float) -> list[Entry]:
        """All that this pod knows, words said here first. What expired is still told until a flow comes to probe it."""
        learned = [case.entry for case in self._learned.values() if case.entry.state is not State.UNKNOWN]
        certificates = [entry for entry in self._certificates.values() if bypass_runs(entry, now, self.settings)]
        return [*self._said.values(), *certificates, *learned]

    def heard(self) -> list[Entry]:
        """What the control plane told: people's words, and bypasses of other pods."""
        return self._heard.entries()

    def dump(self, now: float) -> bytes:
        """Write down all that is known, for `load`."""
        return trust_dump.encode(
            trust_dump.Dump(
                workload=self._workload,
                authority=self._authority,
                entries=tuple(self.entries(now)),
                heard=tuple(self.heard()),
            )
        )

    @classmethod
    def load(
        cls,
        data: bytes,
        settings: FailOpen,
        *,
        workload: str | None = None,
        authority: str | None = None,
        canary_wait: float = 5.0,
    ) -> "TrustCache":
        """Read a dump. Raises `TrustDumpError`. `workload` and `authority` None: as in the dump.

        Trust in another CA is not carried over; distrust is, as are people's words.
        """
        dump = trust_dump.decode(data)
        cache = cls(
            settings,
            dump.workload if workload is None else workload,
            authority=dump.authority if authority is None else authority,
            canary_wait=canary_wait,
        )
        same_authority = cache._authority == dump.authority
        for entry in dump.entries:
            if same_authority or entry.state is not State.TRUSTED:
                cache._restore(entry)
        cache._said_hosts = frozenset(key.host for key in cache._said)
        cache._heard.restore(dump.heard)
        return cache

    def _restore(self, entry: Entry) -> None:
        key = Key(entry.host, App(self._workload, entry.uid, entry.ja4))
        if entry.state in PERSONAL:
            self._said[key] = entry
        elif not self._make_room():
            return
        elif entry.reason is Reason.CLIENT_CERTIFICATE_REQUESTED:
            self._certificates[entry.host] = entry
        else:
            self._learned[key] = _Case(entry)

    def _admit_unproven(self, key: Key, now: float, since: float) -> Admission:
        cases = [case for case in self._cases(key, now) if case.entry.state is not State.TRUSTED]
        for case in cases:
            if case.entry.state is State.BYPASSED:
                if bypass_runs(case.entry, now, self.settings):
                    return self._bypass(case, now)
                case.entry = move(case.entry, Event.EXPIRED, now, self.settings)
                self.revision += 1
        if self._heard and (reason := self._hearsay(key, now)) is not None:
            return Bypass(reason)
        probed = next((case for case in cases if case.entry.state is State.PROBATION), None)
        held = next((case for case in cases if self._is_held(case, now)), None)
        if held is not None and probed is not None:
            return self._bypass(probed, now)
        patience = since + self._canary_wait * self.settings.failure_threshold
        if held is not None and since <= now < patience:
            return Wait(_key(held.entry, self._workload), min(held.until, patience))
        ticket = Ticket(key)
        for case in cases:
            case.canary, case.until = ticket, now + self._canary_wait
            self._keep(case)
        return InterceptNow(None if probed is None else Reason.PROBATION, ticket)

    def _hearsay(self, key: Key, now: float) -> Reason | None:
        own, *app = [case.entry.state for case in self._cases(key, now)]
        return self._heard.bypass(key, own, app[0] if app else None, now, self.settings)

    def _is_held(self, case: _Case, now: float) -> bool:
        """A canary is in flight and not overdue (one that is due later than any can began before the clock moved)."""
        return case.canary is not None and not case.open and now < case.until <= now + self._canary_wait

    def _bypass(self, case: _Case, now: float) -> Bypass:
        case.entry = msgspec.structs.replace(case.entry, last_seen=now)
        self._keep(case)
        assert case.entry.reason is not None  # reason_for gives every bypass and probation one
        return Bypass(case.entry.reason)

    def _learn(self, key: Key, outcome: Outcome, alert: int | None, now: float) -> None:
        if (word := self._word_on(key)) is not None:
            key = _key(word, self._workload)
            words = self._said if key in self._said else self._heard.words
            words[key] = hear(word, outcome, alert, now, self.settings)[0]
            return
        own, *app = self._cases(key, now)
        states = [case.entry.state for case in (own, *app)]
        own.entry, event = hear(own.entry, outcome, alert, now, self.settings)
        for case in app:
            case.entry = hear_of_app(case.entry, key.host, event, now, self.settings)
        if event in (Event.SUSPECTED, Event.DISTRUSTED):
            for case in (own, *app):
                case.open = False
        self.revision += states != [case.entry.state for case in (own, *app)]
        for case in (*app, own):
            self._keep(case)

    def _release(self, ticket: Ticket, *, stayed: bool) -> tuple[Key, ...]:
        released = []
        for key in self._watched(ticket.key):
            case = self._learned.get(key)
            if case is not None and case.canary is ticket:
                case.canary = None
                case.open = stayed and case.entry.state is not State.PROBATION
                released.append(key)
                if case.entry.state is State.UNKNOWN and not case.open:
                    del self._learned[key]
        return tuple(released)

    def _watched(self, key: Key) -> tuple[Key, ...]:
        """The entries that a flow bears on. Without a JA4 an app is too vague to be judged as such."""
        return (key,) if key.app.ja4 is None else (key, Key(ANY_HOST, key.app))

    def _cases(self, key: Key, now: float) -> list[_Case]:
        return [self._case(watched, now) for watched in self._watched(key)]

    def _case(self, key: Key, now: float) -> _Case:
        known = self._learned.get(key)
        return known or _Case(Entry(host=key.host, uid=key.app.uid, ja4=key.app.ja4, first_seen=now, last_seen=now))

    def _keep(self, case: _Case) -> None:
        """Put a case last in line to be dropped. It is not kept when only people's words are left to drop."""
        key = _key(case.entry, self._workload)
        if self._learned.pop(key, None) is not None or self._make_room():
            self._learned[key] = case

    def _make_room(self) -> bool:
        """Drop the learned entry that was heard of longest ago, if need be; people's words are never dropped."""
        while self._size() >= self.settings.max_entries:
            if self._learned:
                del self._learned[next(iter(self._learned))]
            elif self._certificates:
                del self._certificates[next(iter(self._certificates))]
            else:
                return False
        return True

    def _size(self) -> int:
        return len(self._learned) + len(self._said) + len(self._certificates)

    def _certificate_needed(self, host: str, now: float) -> bool:
        if bypass_runs(self._certificates[host], now, self.settings):
            return True
        del self._certificates[host]
        self.revision += 1
        return False

    def _say(self, host: str, uid: int | None, ja4: str | None, event: Event, now: float) -> None:
        key = Key(host, App(self._workload, uid, ja4))
        entry = self._said.get(key)
        if entry is None:
            for learned in [learned for learned in self._learned if _covers(host, uid, ja4, learned)]:
                del self._learned[learned]
            if not self._make_room():
                raise TrustCacheFullError(
                    f"trust cache: all {self.settings.max_entries} entries are pins and approvals; forget some,"
                    " or raise failOpen.maxEntries"
                )
            entry = Entry(host=host, uid=uid, ja4=ja4, first_seen=now)
        self._said[key] = move(msgspec.structs.replace(entry, last_seen=now), event, now, self.settings)
        self._said_changed()

    def _said_changed(self) -> None:
        self._said_hosts = frozenset(key.host for key in self._said)
        self.revision += 1

    def _word_on(self, key: Key) -> Entry | None:
        """What a person said about a flow: the most specific word counts, the host before the app, here before there."""
        for host in (key.host, ANY_HOST):
            if host in self._said_hosts or host in self._heard.hosts:
                for app in _covering_apps(key.app):
                    about = Key(host, app)
                    if (word := self._said.get(about) or self._heard.words.get(about)) is not None:
                        return word
        return None


def _covering_apps(app: App) -> Iterator[App]:
    yield app
    yield App(app.workload, app.uid, None)
    yield App(app.workload, None, app.ja4)
    yield App(app.workload, None, None)


def _covers(host: str, uid: int | None, ja4: str | None, key: Key) -> bool:
    return host in (ANY_HOST, key.host) and uid in (None, key.app.uid) and ja4 in (None, key.app.ja4)


def _key(entry: Entry, workload: str) -> Key:
    return Key(entry.host, App(workload, entry.uid, entry.ja4))
