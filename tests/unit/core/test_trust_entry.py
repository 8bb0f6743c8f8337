"""How evidence is weighed: thresholds, proven trust, doubling, and the app as such."""

import msgspec
import pytest

from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.trust import State
from weir_sidecar.core.tls_outcome import Outcome
from weir_sidecar.core.trust_entry import OVERTURN_AFTER, Entry, bypass_runs, hear, hear_of_app, move
from weir_sidecar.core.trust_table import Event

SETTINGS = FailOpen(ttl=100.0, max_ttl=350.0)
NEW = Entry(host="a.test", uid=1000, ja4="t13")


def heard(entry: Entry, *outcomes: Outcome, now: float = 0.0, settings: FailOpen = SETTINGS) -> Entry:
    for outcome in outcomes:
        entry, _ = hear(entry, outcome, 48 if outcome is Outcome.DISTRUSTED else None, now, settings)
    return entry


def test_an_alert_counts_at_once() -> None:
    entry = heard(NEW, Outcome.DISTRUSTED, now=5.0)
    assert (entry.state, entry.reason, entry.alert) == (State.BYPASSED, Reason.CLIENT_DISTRUSTS_CA, 48)
    assert (entry.failures, entry.expires_at, entry.last_seen) == (1, 105.0, 5.0)


@pytest.mark.parametrize("outcome", [Outcome.SUSPICION, Outcome.WEAK_SUSPICION])
@pytest.mark.parametrize("threshold", [1, 2, 5])
def test_suspicions_need_repeating(outcome: Outcome, threshold: int) -> None:
    settings = FailOpen(failure_threshold=threshold)
    almost = heard(NEW, *[outcome] * (threshold - 1), settings=settings)
    assert almost.state is (State.UNKNOWN if threshold == 1 else State.FAILING)
    assert heard(almost, outcome, settings=settings).state is State.BYPASSED


def test_success_wipes_suspicion() -> None:
    entry = heard(NEW, Outcome.SUSPICION, Outcome.TRUSTED)
    assert (entry.state, entry.suspicions, entry.successes, entry.failures) == (State.TRUSTED, 0, 1, 1)


def test_what_proves_nothing_changes_nothing() -> None:
    entry = heard(NEW, Outcome.SUSPICION)
    assert heard(entry, Outcome.NEUTRAL, Outcome.STAYED) == entry


def test_completed_handshakes_never_overturn_trust() -> None:
    trusted = heard(NEW, Outcome.TRUSTED)
    entry = heard(trusted, *[Outcome.WEAK_SUSPICION] * 1000, now=1e6)
    assert (entry.state, entry.failures) == (State.TRUSTED, 0)


def test_a_row_of_broken_off_handshakes_overturns_trust_in_the_end() -> None:
    trusted = heard(NEW, Outcome.TRUSTED)
    assert heard(trusted, *[Outcome.SUSPICION] * 7, now=OVERTURN_AFTER).state is State.TRUSTED
    assert heard(trusted, *[Outcome.SUSPICION] * 1000, now=OVERTURN_AFTER - 1).state is State.TRUSTED
    assert heard(trusted, *[Outcome.SUSPICION] * 8, now=OVERTURN_AFTER).state is State.BYPASSED


@pytest.mark.parametrize("between", [Outcome.WEAK_SUSPICION, Outcome.TRUSTED])
def test_the_row_must_be_unbroken(between: Outcome) -> None:
    row = [*[Outcome.SUSPICION] * 7, between]
    assert heard(heard(NEW, Outcome.TRUSTED), *row * 50, now=OVERTURN_AFTER).state is State.TRUSTED


def test_an_alert_overturns_trust() -> None:
    assert heard(NEW, Outcome.TRUSTED, Outcome.DISTRUSTED).state is State.BYPASSED


def test_each_bypass_is_twice_as_long_up_to_the_maximum() -> None:
    entry, lengths = NEW, []
    for _ in range(70):
        entry = heard(move(entry, Event.EXPIRED, 0.0, SETTINGS), Outcome.DISTRUSTED)
        lengths.append(entry.expires_at)
    assert lengths[:4] == [100.0, 200.0, 350.0, 350.0]
    assert set(lengths[4:]) == {350.0}


def test_a_probe_that_fails_in_silence_is_enough_and_one_that_speaks_starts_afresh() -> None:
    probation = move(heard(NEW, Outcome.DISTRUSTED), Event.EXPIRED, 100.0, SETTINGS)
    assert (probation.state, probation.reason, probation.expires_at) == (
        State.PROBATION,
        Reason.CLIENT_DISTRUSTS_CA,
        None,
    )
    assert heard(probation, Outcome.SUSPICION, now=100.0).expires_at == 300.0
    healed = heard(probation, Outcome.TRUSTED, now=100.0)
    assert (healed.state, healed.reason, healed.alert, healed.bypasses) == (State.TRUSTED, None, None, 0)
    assert heard(healed, Outcome.DISTRUSTED, now=100.0).expires_at == 200.0


def test_a_straggler_does_not_lengthen_a_bypass() -> None:
    entry = heard(NEW, Outcome.DISTRUSTED)
    assert heard(entry, Outcome.DISTRUSTED, now=50.0).expires_at == 100.0


def test_when_disabled_distrust_is_counted_and_never_a_bypass() -> None:
    entry = heard(NEW, *[Outcome.DISTRUSTED] * 9, *[Outcome.SUSPICION] * 9, settings=FailOpen(enabled=False))
    assert (entry.state, entry.failures) == (State.FAILING, 18)


@pytest.mark.parametrize(("now", "runs"), [(0.0, True), (99.9, True), (100.0, False), (-250.0, True), (-250.1, False)])
def test_a_bypass_runs_to_its_end_and_not_for_ever_when_the_clock_is_set_back(now: float, runs: bool) -> None:
    assert bypass_runs(heard(NEW, Outcome.DISTRUSTED), now, SETTINGS) is runs


APP = Entry(host="*", uid=1000, ja4="t13")


def app_heard(*failures: tuple[str, Event], settings: FailOpen = SETTINGS, entry: Entry = APP) -> Entry:
    for host, event in failures:
        entry = hear_of_app(entry, host, event, 0.0, settings)
    return entry


def test_an_app_that_failed_on_three_hosts_is_bypassed_as_such() -> None:
    two = app_heard(("a", Event.DISTRUSTED), ("b", Event.SUSPECTED), ("a", Event.DISTRUSTED))
    assert two.state is State.FAILING
    three = app_heard(("c", Event.SUSPECTED), entry=two)
    assert (three.state, three.reason) == (State.BYPASSED, Reason.APP_DISTRUSTS_CA)


def test_suspicions_on_hosts_need_the_threshold_too() -> None:
    settings = FailOpen(failure_threshold=5)
    assert app_heard(*[(host, Event.SUSPECTED) for host in "abcd"], settings=settings).state is State.FAILING
    assert app_heard(*[(host, Event.SUSPECTED) for host in "abcde"], settings=settings).state is State.BYPASSED
    assert app_heard(*[(host, Event.DISTRUSTED) for host in "abc"], settings=settings).state is State.BYPASSED


def test_an_app_that_ever_succeeded_is_judged_host_by_host() -> None:
    trusted = app_heard(("a", Event.TRUSTED))
    assert app_heard(*[(str(host), Event.DISTRUSTED) for host in range(99)], entry=trusted) == trusted
    assert app_heard(("a", Event.DISTRUSTED), ("b", Event.TRUSTED)).failed_hosts == ()


def test_what_an_app_remembers_is_bounded() -> None:
    many = app_heard(*[(str(n), Event.SUSPECTED) for n in range(1000)], settings=FailOpen(enabled=False))
    assert many.state is State.FAILING
    assert len(msgspec.json.encode(many)) < 500
