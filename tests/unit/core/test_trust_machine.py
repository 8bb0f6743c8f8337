"""The cache under any order of events, beside a simple account of what it was told."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.trust import Said, State, Told, Word
from weir_sidecar.core.tls_outcome import Outcome
from weir_sidecar.core.trust_cache import Bypass, InterceptNow, Ticket, TrustCache, Wait
from weir_sidecar.core.trust_entry import ANY_HOST, bypass_runs
from weir_sidecar.core.trust_table import PERSONAL

SETTINGS = FailOpen(ttl=60.0, max_ttl=200.0, max_entries=1000)
TIGHT = FailOpen(ttl=60.0, max_ttl=200.0, max_entries=16)
CANARY_WAIT = 5.0
PATIENCE = CANARY_WAIT * SETTINGS.failure_threshold

hosts = st.sampled_from([f"{letter}.test" for letter in "abcdefgh"])
uids = st.sampled_from([None, 0, 1000])
ja4s = st.sampled_from([None, "j1", "j2"])
words = st.sampled_from(["pin", "approve"])
said_afar = st.lists(st.builds(Said, hosts | st.just(ANY_HOST), st.sampled_from(Word), uids, ja4s), max_size=3)
learned_afar = st.lists(
    st.builds(
        Told,
        hosts | st.just(ANY_HOST),
        st.sampled_from(State),
        uids,
        ja4s,
        st.sampled_from([None, Reason.CLIENT_DISTRUSTS_CA, Reason.CLIENT_CERTIFICATE_REQUESTED]),
        expires_at=st.sampled_from([None, 1e9, 1e9 + 60, 1e9 + 1e6]),
    ),
    max_size=4,
)
FAILURES = [Outcome.SUSPICION, Outcome.WEAK_SUSPICION, Outcome.DISTRUSTED]


class Machine(RuleBasedStateMachine):
    settings = SETTINGS

    def __init__(self) -> None:
        super().__init__()
        self.cache = TrustCache(self.settings, "w", canary_wait=CANARY_WAIT)
        self.now = 1e9
        self.tickets: list[Ticket] = []
        self.canaries: dict[tuple[str, int | None, str | None], list[tuple[Ticket, float]]] = {}
        self.failed_ja4: set[str | None] = set()
        self.said: dict[tuple[str, int | None, str | None], str] = {}
        self.asked_for_certificate: set[str] = set()
        self.said_afar: dict[tuple[str, int | None, str | None], str] = {}
        self.learned_afar: list[Told] = []

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.9, 5.0, 60.0, 200.0, -3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(host=hosts, uid=uids, ja4=ja4s, waited=st.sampled_from([None, 0.0, 4.0, 10.0]))
    def admit(self, host: str, uid: int | None, ja4: str | None, waited: float | None) -> None:
        since = None if waited is None else self.now - waited
        admission = self.cache.admit(host, uid, ja4, self.now, since)
        word = self.word_on(host, uid, ja4)
        match admission:
            case Bypass(reason=Reason.PINNED):
                assert word == "pin"
            case Bypass(reason=Reason.CLIENT_CERTIFICATE_REQUESTED):
                assert word is None
                assert host in self.asked_for_certificate or self.heard(host, uid, ja4)
            case Bypass():
                assert word is None
                assert ja4 in self.failed_ja4 or self.heard(host, uid, ja4)  # never without evidence
            case Wait(until=until):
                assert word is None
                assert self.now < until <= self.now + CANARY_WAIT
                assert waited is None or waited < PATIENCE
            case InterceptNow(reason=reason, ticket=ticket):
                assert (reason is Reason.APPROVED) == (word == "approve")
                assert word != "pin"
                self.tickets.append(ticket)
                if word is None and not (waited is not None and waited >= PATIENCE):
                    self.at_most_one_canary(host, uid, ja4, ticket)

    def at_most_one_canary(self, host: str, uid: int | None, ja4: str | None, ticket: Ticket) -> None:
        """Of those that nobody has heard of, and that are not overdue, one at most is in flight."""
        key = (host, uid, ja4)
        known = {(e.host, e.uid, e.ja4): e.state for e in self.cache.entries(self.now)}
        if known.get(key) is State.TRUSTED:
            return
        young = [
            other
            for other, began in self.canaries.get(key, [])
            if other.weight == 0 and began <= self.now < began + CANARY_WAIT
        ]
        assert young == []
        self.canaries.setdefault(key, []).append((ticket, self.now))

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def report(self, data: st.DataObject, outcome: Outcome) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        if outcome in FAILURES:
            self.failed_ja4.add(ticket.key.app.ja4)
            if ticket.key.app.ja4 is None:
                self.failed_ja4.update(("j1", "j2"))  # a ticket under a person's word names no app
        self.cache.report(ticket, outcome, 48 if outcome is Outcome.DISTRUSTED else None, self.now)
        if outcome in (Outcome.STAYED, Outcome.NEUTRAL):
            self.forget_canary(ticket)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        self.cache.abandon(ticket)
        self.forget_canary(ticket)

    def forget_canary(self, ticket: Ticket) -> None:
        for key, in_flight in self.canaries.items():
            if any(other is ticket for other, _ in in_flight):
                self.canaries[key] = []

    @rule(host=hosts | st.just(ANY_HOST), uid=uids, ja4=ja4s, word=words)
    def say(self, host: str, uid: int | None, ja4: str | None, word: str) -> None:
        if len(self.said) < self.settings.max_entries:
            (self.cache.pin if word == "pin" else self.cache.approve)(host, uid, ja4, self.now)
            self.said[host, uid, ja4] = word
            self.canaries.clear()

    @rule(host=hosts | st.just(ANY_HOST), uid=uids, ja4=ja4s)
    def forget(self, host: str, uid: int | None, ja4: str | None) -> None:
        self.cache.forget(host, uid, ja4)
        self.said = {
            key: word
            for key, word in self.said.items()
            if not (host in (ANY_HOST, key[0]) and uid in (None, key[1]) and ja4 in (None, key[2]))
        }
        self.canaries.clear()

    @rule(host=hosts)
    def client_certificate(self, host: str) -> None:
        self.cache.remember_client_certificate(host, self.now)
        self.asked_for_certificate.add(host)

    @rule(said=said_afar, learned=learned_afar)
    def the_control_plane_tells(self, said: list[Said], learned: list[Told]) -> None:
        before = self.cache.entries(self.now)
        self.cache.adopt(said, learned, self.now)
        assert [entry for entry in self.cache.entries(self.now) if entry not in before] == []  # at most forgotten
        self.said_afar = {(s.host, s.uid, s.ja4): s.word.value for s in said if s.word is not Word.FORGET}
        self.learned_afar = learned
        self.canaries.clear()

    def heard(self, host: str, uid: int | None, ja4: str | None) -> bool:
        """Somebody was heard to bypass this, and still does; and this pod does not trust it."""
        about = {(host, uid, ja4), (host, None, None), (ANY_HOST, uid, ja4)}
        known = {(e.host, e.uid, e.ja4): e.state for e in self.cache.entries(self.now)}
        return known.get((host, uid, ja4)) in (None, State.FAILING) and any(
            (told.host, told.uid, told.ja4) in about
            and told.state is State.BYPASSED
            and told.expires_at is not None
            and self.now < told.expires_at <= self.now + self.settings.max_ttl
            for told in self.learned_afar
        )

    @rule()
    def restart(self) -> None:
        before = self.cache.entries(self.now)
        self.cache = TrustCache.load(self.cache.dump(self.now), self.settings, workload="w", canary_wait=CANARY_WAIT)
        assert self.cache.entries(self.now) == before
        self.canaries.clear()

    def word_on(self, host: str, uid: int | None, ja4: str | None) -> str | None:
        for name in (host, ANY_HOST):
            for app in ((uid, ja4), (uid, None), (None, ja4), (None, None)):
                if (name, *app) in self.said:
                    return self.said[name, *app]
                if (name, *app) in self.said_afar:
                    return self.said_afar[name, *app]
        return None

    @invariant()
    def it_is_bounded(self) -> None:
        assert self.cache._size() <= self.settings.max_entries

    @invariant()
    def what_it_tells_is_coherent(self) -> None:
        for entry in self.cache.entries(self.now):
            assert (entry.expires_at is not None) == (entry.state is State.BYPASSED)
            assert ((entry.host, entry.uid, entry.ja4) in self.said) == (entry.state in PERSONAL) or (
                entry.state not in PERSONAL
            )
            if entry.state is State.BYPASSED and bypass_runs(entry, self.now, self.settings):
                assert entry.failures or entry.host in self.asked_for_certificate


class TightMachine(Machine):
    """Entries are dropped all the time, canaries in flight among them."""

    settings = TIGHT

    def at_most_one_canary(self, *_: object) -> None:
        """Not where the canary itself may be dropped."""


TestMachine = Machine.TestCase
TestTightMachine = TightMachine.TestCase
TestMachine.settings = TestTightMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
