"""Admission: canaries, bypass and probation, generalisation, people's words, bounds."""

import pytest

from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.trust import State
from weir_sidecar.core.tls_outcome import Outcome
from weir_sidecar.core.trust_cache import Admission, Bypass, InterceptNow, Ticket, TrustCache, TrustCacheFullError, Wait
from weir_sidecar.core.trust_entry import ANY_HOST, App, Key

SETTINGS = FailOpen(ttl=100.0, max_ttl=1000.0, max_entries=64)
JA4 = "t13d1516h2_8daaf6152771_b186095e22b6"
OTHER_JA4 = "t13d190900_9dc949149365_97f8aa674fd9"
OWN_KEY = Key("a.test", App("w", 1000, JA4))
APP_KEY = Key(ANY_HOST, App("w", 1000, JA4))


@pytest.fixture
def cache() -> TrustCache:
    return TrustCache(SETTINGS, "w")


def ask(cache: TrustCache, host: str = "a.test", now: float = 0.0, *, ja4: str | None = JA4) -> Admission:
    return cache.admit(host, 1000, ja4, now)


def ticket_of(admission: Admission) -> Ticket:
    assert isinstance(admission, InterceptNow)
    return admission.ticket


def fail(cache: TrustCache, host: str = "a.test", now: float = 0.0) -> None:
    cache.report(ticket_of(ask(cache, host, now)), Outcome.DISTRUSTED, 48, now)


def trust(cache: TrustCache, host: str = "a.test", now: float = 0.0) -> None:
    cache.report(ticket_of(ask(cache, host, now)), Outcome.TRUSTED, None, now)


def reason_now(cache: TrustCache, host: str = "a.test", now: float = 0.0, *, ja4: str | None = JA4) -> Reason | None:
    admission = ask(cache, host, now, ja4=ja4)
    assert not isinstance(admission, Wait)
    return admission.reason


# One canary


def test_flows_wait_for_the_canary_and_are_told_who_to_wait_for(cache: TrustCache) -> None:
    canary = ticket_of(ask(cache))
    assert ask(cache, now=1.0) == Wait(OWN_KEY, 5.0)
    assert cache.report(canary, Outcome.TRUSTED, None, 1.0) == (OWN_KEY, APP_KEY)
    first, second = ask(cache, now=1.0), ask(cache, now=1.0)
    assert isinstance(first, InterceptNow)
    assert isinstance(second, InterceptNow)


def test_an_app_that_never_succeeded_has_one_canary_for_all_hosts(cache: TrustCache) -> None:
    canary = ticket_of(ask(cache, "a.test"))
    assert ask(cache, "b.test") == Wait(APP_KEY, 5.0)
    cache.report(canary, Outcome.TRUSTED, None, 0.0)
    assert isinstance(ask(cache, "b.test"), InterceptNow)
    assert isinstance(ask(cache, "c.test"), InterceptNow)
    assert isinstance(ask(cache, "b.test"), Wait)


def test_apps_and_unknown_apps_do_not_wait_for_each_other(cache: TrustCache) -> None:
    assert isinstance(ask(cache), InterceptNow)
    assert isinstance(ask(cache, ja4=OTHER_JA4), InterceptNow)
    assert isinstance(ask(cache, ja4=None), InterceptNow)
    assert isinstance(ask(cache, "b.test", ja4=None), InterceptNow)


@pytest.mark.parametrize("outcome", [Outcome.SUSPICION, Outcome.WEAK_SUSPICION, Outcome.NEUTRAL])
def test_the_next_canary_goes_when_one_proved_nothing(cache: TrustCache, outcome: Outcome) -> None:
    canary = ticket_of(ask(cache))
    assert OWN_KEY in cache.report(canary, outcome, None, 0.0)
    assert isinstance(ask(cache), InterceptNow)
    assert isinstance(ask(cache), Wait)


def test_an_abandoned_canary_makes_way(cache: TrustCache) -> None:
    assert cache.abandon(ticket_of(ask(cache))) == (OWN_KEY, APP_KEY)
    assert isinstance(ask(cache), InterceptNow)


def test_nobody_waits_for_an_idle_client_until_one_fails(cache: TrustCache) -> None:
    idle = ticket_of(ask(cache))
    assert cache.report(idle, Outcome.STAYED, None, 0.3) == (OWN_KEY, APP_KEY)
    others = [ticket_of(ask(cache, now=0.3)) for _ in range(10)]
    cache.report(others[0], Outcome.SUSPICION, None, 0.4)
    assert isinstance(ask(cache, now=0.4), Wait)


def test_a_lost_canary_holds_others_up_for_a_bounded_time_and_one_at_a_time(cache: TrustCache) -> None:
    ticket_of(ask(cache))
    assert isinstance(ask(cache, now=4.9), Wait)
    assert isinstance(ask(cache, now=5.0), InterceptNow)
    assert ask(cache, now=5.0) == Wait(OWN_KEY, 10.0)


def test_a_flow_waits_for_as_many_canaries_as_make_a_failure(cache: TrustCache) -> None:
    ticket_of(ask(cache))
    ticket_of(ask(cache, now=5.0))
    assert cache.admit("a.test", 1000, JA4, 9.0, since=0.5) == Wait(OWN_KEY, 10.0)
    ticket_of(ask(cache, now=10.0))
    assert cache.admit("a.test", 1000, JA4, 10.1, since=0.5) == Wait(OWN_KEY, 10.5)
    assert isinstance(cache.admit("a.test", 1000, JA4, 10.5, since=0.5), InterceptNow)


def test_a_clock_set_back_makes_nobody_wait_for_long(cache: TrustCache) -> None:
    ticket_of(ask(cache, now=1000.0))
    assert isinstance(ask(cache, now=0.0), InterceptNow)
    assert isinstance(cache.admit("a.test", 1000, JA4, 0.1, since=1000.0), InterceptNow)


# Tickets


def test_a_connection_counts_as_one_failure(cache: TrustCache) -> None:
    stalled = ticket_of(ask(cache))
    cache.report(stalled, Outcome.SUSPICION, None, 4.0)
    assert cache.report(stalled, Outcome.SUSPICION, None, 27.0) == ()
    assert [entry.suspicions for entry in cache.entries(27.0) if entry.host == "a.test"] == [1]


def test_a_stalled_client_that_speaks_after_all_is_trusted(cache: TrustCache) -> None:
    stalled = [ticket_of(ask(cache, now=now)) for now in (0.0, 5.0)]
    for ticket in stalled:
        cache.report(ticket, Outcome.SUSPICION, None, 9.0)
    assert reason_now(cache, now=9.0) is Reason.CLIENT_DISTRUSTS_CA
    assert cache.report(stalled[0], Outcome.TRUSTED, None, 10.0) == (OWN_KEY, APP_KEY)
    assert reason_now(cache, now=10.0) is None


def test_nothing_counts_after_data(cache: TrustCache) -> None:
    ticket = ticket_of(ask(cache))
    cache.report(ticket, Outcome.TRUSTED, None, 0.0)
    assert cache.report(ticket, Outcome.DISTRUSTED, 48, 1.0) == ()
    assert reason_now(cache, now=1.0) is None


# Bypass, probation


def test_a_bypass_ends_in_one_probe_while_the_others_pass(cache: TrustCache) -> None:
    trust(cache, "z.test")
    fail(cache)
    assert reason_now(cache, now=99.0) is Reason.CLIENT_DISTRUSTS_CA
    probe = ask(cache, now=100.0)
    assert probe == InterceptNow(Reason.PROBATION, ticket_of(probe))
    assert ask(cache, now=100.0) == Bypass(Reason.CLIENT_DISTRUSTS_CA)
    cache.report(ticket_of(probe), Outcome.WEAK_SUSPICION, None, 100.0)
    assert reason_now(cache, now=299.0) is Reason.CLIENT_DISTRUSTS_CA
    probe = ask(cache, now=300.0)
    cache.report(ticket_of(probe), Outcome.TRUSTED, None, 300.0)
    assert reason_now(cache, now=300.0) is None


@pytest.mark.parametrize("lost", [True, False])
def test_a_probe_that_tells_nothing_is_followed_by_another(cache: TrustCache, lost: bool) -> None:
    fail(cache)
    probe = ticket_of(ask(cache, now=100.0))
    if not lost:
        cache.report(probe, Outcome.STAYED, None, 100.0)
    now = 105.0 if lost else 100.0
    assert reason_now(cache, now=now) is Reason.PROBATION
    assert reason_now(cache, now=now) is Reason.CLIENT_DISTRUSTS_CA


def test_an_app_that_fails_everywhere_is_bypassed_everywhere(cache: TrustCache) -> None:
    for host in ("a.test", "b.test", "c.test"):
        fail(cache, host)
    assert reason_now(cache, "a.test") is Reason.CLIENT_DISTRUSTS_CA
    assert reason_now(cache, "new.test") is Reason.APP_DISTRUSTS_CA
    assert reason_now(cache, "new.test", ja4=OTHER_JA4) is None


def test_a_bypassed_app_has_one_probe_for_all_hosts(cache: TrustCache) -> None:
    for host in ("a.test", "b.test", "c.test"):
        fail(cache, host)
    probe = ask(cache, "d.test", now=100.0)
    assert isinstance(probe, InterceptNow)
    assert probe.reason is Reason.PROBATION
    assert reason_now(cache, "e.test", now=100.0) is Reason.APP_DISTRUSTS_CA
    assert reason_now(cache, "a.test", now=100.0) is Reason.CLIENT_DISTRUSTS_CA
    cache.report(probe.ticket, Outcome.SUSPICION, None, 100.0)
    assert reason_now(cache, "e.test", now=299.0) is Reason.APP_DISTRUSTS_CA
    cache.report(ticket_of(ask(cache, "e.test", now=300.0)), Outcome.TRUSTED, None, 300.0)
    assert reason_now(cache, "f.test", now=300.0) is None


def test_an_app_of_which_nothing_is_known_is_not_generalised(cache: TrustCache) -> None:
    for host in ("a.test", "b.test", "c.test", "d.test"):
        cache.report(ticket_of(cache.admit(host, None, None, 0.0)), Outcome.DISTRUSTED, 48, 0.0)
    assert isinstance(cache.admit("e.test", None, None, 0.0), InterceptNow)


def test_disabled_means_never_a_bypass_for_distrust_and_nobody_waits(cache: TrustCache) -> None:
    fail(cache)
    cache.settings = FailOpen(enabled=False)
    assert reason_now(cache) is None
    fail(cache, "b.test")
    assert reason_now(cache, "b.test") is None
    cache.pin("b.test", None, None, 0.0)
    assert reason_now(cache, "b.test") is Reason.PINNED


def test_an_upstream_that_wants_a_client_certificate_is_passed_through_for_a_ttl(cache: TrustCache) -> None:
    cache.remember_client_certificate("a.test", 0.0)
    assert reason_now(cache, now=99.0) is Reason.CLIENT_CERTIFICATE_REQUESTED
    assert [entry.reason for entry in cache.entries(99.0)] == [Reason.CLIENT_CERTIFICATE_REQUESTED]
    assert cache.entries(100.0) == []
    assert reason_now(cache, now=100.0) is None


# People


def test_a_pin_acts_at_once_and_on_trusted_apps_too(cache: TrustCache) -> None:
    trust(cache)
    cache.pin("a.test", 1000, JA4, 1.0)
    assert reason_now(cache) is Reason.PINNED
    assert reason_now(cache, ja4=OTHER_JA4) is None


def test_an_approval_acts_at_once_and_outlives_failures(cache: TrustCache) -> None:
    fail(cache)
    cache.approve("a.test", None, None, 1.0)
    for now in (1.0, 2.0, 3.0):
        assert reason_now(cache, now=now) is Reason.APPROVED
        fail(cache, now=now)
    (entry,) = (entry for entry in cache.entries(3.0) if entry.host == "a.test")
    assert (entry.state, entry.failures, entry.alert, entry.expires_at) == (State.APPROVED, 3, 48, None)


def test_a_connection_that_was_in_flight_counts_towards_the_word(cache: TrustCache) -> None:
    ticket = ticket_of(ask(cache))
    cache.approve("a.test", None, None, 1.0)
    cache.report(ticket, Outcome.DISTRUSTED, 48, 2.0)
    assert reason_now(cache, now=2.0) is Reason.APPROVED
    cache.forget("a.test", None, None)
    assert reason_now(cache, now=2.0) is None


@pytest.mark.parametrize("host", ["a.test", ANY_HOST])
@pytest.mark.parametrize("uid", [1000, None])
@pytest.mark.parametrize("ja4", [JA4, None])
def test_what_is_left_out_of_a_word_means_any(cache: TrustCache, host: str, uid: int | None, ja4: str | None) -> None:
    cache.pin(host, uid, ja4, 0.0)
    assert cache.admit("a.test", 1000, JA4, 0.0) == Bypass(Reason.PINNED)
    assert (cache.admit("b.test", 1000, JA4, 0.0) == Bypass(Reason.PINNED)) == (host == ANY_HOST)
    assert (cache.admit("a.test", 1, JA4, 0.0) == Bypass(Reason.PINNED)) == (uid is None)
    assert (cache.admit("a.test", 1000, OTHER_JA4, 0.0) == Bypass(Reason.PINNED)) == (ja4 is None)


def test_the_most_specific_word_counts(cache: TrustCache) -> None:
    cache.pin(ANY_HOST, 1000, JA4, 0.0)
    cache.approve("a.test", None, None, 0.0)
    assert reason_now(cache) is Reason.APPROVED
    cache.pin("a.test", 1000, None, 0.0)
    assert reason_now(cache) is Reason.PINNED


def test_people_overrule_each_other_and_the_certificate_memory(cache: TrustCache) -> None:
    cache.remember_client_certificate("a.test", 0.0)
    cache.pin("a.test", None, None, 0.0)
    assert reason_now(cache) is Reason.PINNED
    cache.approve("a.test", None, None, 1.0)
    assert reason_now(cache) is Reason.APPROVED


def test_forget_forgets_everything_covered(cache: TrustCache) -> None:
    fail(cache)
    cache.pin("a.test", None, None, 0.0)
    cache.remember_client_certificate("a.test", 0.0)
    fail(cache, "b.test")
    assert cache.forget("a.test", None, None) == 2
    assert reason_now(cache) is None
    assert reason_now(cache, "b.test") is Reason.CLIENT_DISTRUSTS_CA
    assert cache.forget("nobody.test", None, None) == 0
    cache.forget(ANY_HOST, 1000, JA4)
    assert cache.entries(0.0) == []


def test_forgetting_an_app_lets_it_begin_anew(cache: TrustCache) -> None:
    for host in ("a.test", "b.test", "c.test"):
        fail(cache, host)
    cache.forget(ANY_HOST, 1000, JA4)
    fail(cache, "d.test")
    assert reason_now(cache, "e.test") is None


# Bounds


def test_the_oldest_learned_entry_goes_first_and_people_s_words_never(cache: TrustCache) -> None:
    cache.pin("pinned.test", None, None, 0.0)
    for number in range(100):
        trust(cache, f"{number}.test")
    entries = cache.entries(0.0)
    assert len(entries) == 64
    assert entries[0].host == "pinned.test"
    assert {"99.test", "98.test"} <= {entry.host for entry in entries}
    assert "0.test" not in {entry.host for entry in entries}


def test_a_bypass_that_is_used_is_kept(cache: TrustCache) -> None:
    trust(cache, "z.test")
    fail(cache)
    for number in range(100):
        trust(cache, f"{number}.test")
        assert reason_now(cache) is Reason.CLIENT_DISTRUSTS_CA


def test_a_cache_full_of_words_says_so_and_still_decides(cache: TrustCache) -> None:
    for number in range(64):
        cache.pin(f"{number}.test", None, None, 0.0)
    with pytest.raises(TrustCacheFullError, match="all 64 entries are pins and approvals"):
        cache.pin("one-more.test", None, None, 0.0)
    cache.approve("1.test", None, None, 0.0)
    fail(cache)
    cache.remember_client_certificate("m.test", 0.0)
    assert reason_now(cache) is None
    assert len(cache.entries(0.0)) == 64


def test_the_revision_tells_when_to_save(cache: TrustCache) -> None:
    seen = [cache.revision]
    trust(cache)
    seen.append(cache.revision)
    trust(cache)
    assert cache.revision == seen[-1]
    for change in (
        lambda: fail(cache),
        lambda: cache.pin("a.test", None, None, 0.0),
        lambda: cache.forget("a.test", None, None),
        lambda: cache.remember_client_certificate("a.test", 0.0),
    ):
        change()
        seen.append(cache.revision)
    assert seen == sorted(set(seen))
