"""What the control plane tells a cache: words of people, and what other pods of the workload learned."""

import msgspec
import pytest

from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.trust import Said, State, Told, Word
from weir_sidecar.core.tls_outcome import Outcome
from weir_sidecar.core.trust_cache import Bypass, InterceptNow, TrustCache, Wait
from weir_sidecar.core.trust_entry import ANY_HOST

SETTINGS = FailOpen(ttl=100.0, max_ttl=1000.0, max_entries=64)
JA4 = "t13d1516h2_8daaf6152771_b186095e22b6"
UID = 1000


@pytest.fixture
def cache() -> TrustCache:
    return TrustCache(SETTINGS, "w")


def bypassed(host: str = "a.test", until: float = 100.0, **other: object) -> Told:
    entry = Told(
        host, State.BYPASSED, UID, JA4, Reason.CLIENT_DISTRUSTS_CA, 48, failures=1, bypasses=1, expires_at=until
    )
    return msgspec.structs.replace(entry, **other)


CERTIFICATE = bypassed(uid=None, ja4=None, reason=Reason.CLIENT_CERTIFICATE_REQUESTED)


def outcome(cache: TrustCache, what: Outcome, host: str = "a.test", now: float = 0.0) -> None:
    admission = cache.admit(host, UID, JA4, now)
    assert isinstance(admission, InterceptNow)
    cache.report(admission.ticket, what, None, now)


def reason(cache: TrustCache, host: str = "a.test", now: float = 1.0, ja4: str | None = JA4) -> Reason | None:
    """Why the flow is passed through; None: it is intercepted."""
    admission = cache.admit(host, UID, ja4, now)
    assert not isinstance(admission, Wait)
    if isinstance(admission, InterceptNow):
        cache.abandon(admission.ticket)
        return None
    return admission.reason


# What other pods learned


def test_the_first_flow_of_a_pod_is_passed_through_for_what_another_learned(cache: TrustCache) -> None:
    cache.adopt((), [bypassed()], 0.0)
    assert reason(cache) is Reason.CLIENT_DISTRUSTS_CA
    assert reason(cache, "b.test") is None
    assert reason(cache, ja4="other") is None
    assert reason(cache, ja4=None) is None


def test_a_bypass_heard_of_is_believed_for_a_while_beyond_its_end(cache: TrustCache) -> None:
    cache.adopt((), [bypassed()], 0.0, patience=50.0)
    assert reason(cache, now=149.0) is Reason.CLIENT_DISTRUSTS_CA
    assert reason(cache, now=150.0) is None


def test_it_is_not_believed_for_longer_than_any_bypass_lasts(cache: TrustCache) -> None:
    cache.adopt((), [bypassed(until=990.0)], 0.0, patience=50.0)
    assert reason(cache, now=1.0) is Reason.CLIENT_DISTRUSTS_CA
    assert reason(cache, now=1000.0) is None


def test_an_app_that_trusts_nothing_is_passed_through_everywhere(cache: TrustCache) -> None:
    cache.adopt((), [bypassed(ANY_HOST)], 0.0)
    assert reason(cache, "whatever.test") is Reason.APP_DISTRUSTS_CA


def test_an_upstream_that_asks_for_certificates_asks_every_app(cache: TrustCache) -> None:
    cache.adopt((), [CERTIFICATE], 0.0)
    assert reason(cache) is Reason.CLIENT_CERTIFICATE_REQUESTED
    assert reason(cache, ja4=None) is Reason.CLIENT_CERTIFICATE_REQUESTED


def test_a_bypass_of_an_unknown_app_is_not_of_every_app(cache: TrustCache) -> None:
    cache.adopt((), [bypassed(uid=None, ja4=None)], 0.0)
    assert reason(cache) is None
    assert cache.admit("a.test", None, None, 1.0) == Bypass(Reason.CLIENT_DISTRUSTS_CA)


def test_suspicions_of_our_own_do_not_stand_against_it(cache: TrustCache) -> None:
    outcome(cache, Outcome.SUSPICION)
    cache.adopt((), [bypassed()], 0.0)
    assert reason(cache) is Reason.CLIENT_DISTRUSTS_CA


def test_what_this_pod_trusts_stays_trusted(cache: TrustCache) -> None:
    outcome(cache, Outcome.TRUSTED)
    cache.adopt((), [bypassed(), bypassed(ANY_HOST)], 0.0)
    assert reason(cache) is None
    assert reason(cache, "b.test") is None  # the app has succeeded here: it does not distrust all


def test_it_ends_when_it_said_it_would(cache: TrustCache) -> None:
    cache.adopt((), [bypassed(until=100.0)], 0.0)
    assert reason(cache, now=99.9) is Reason.CLIENT_DISTRUSTS_CA
    assert reason(cache, now=100.0) is None


def test_it_cannot_last_longer_than_a_bypass_may(cache: TrustCache) -> None:
    cache.adopt((), [bypassed(until=1e12)], 0.0)
    assert reason(cache) is None


def test_it_does_not_make_our_own_bypass_longer(cache: TrustCache) -> None:
    outcome(cache, Outcome.DISTRUSTED)  # until 100
    cache.adopt((), [bypassed(until=500.0), bypassed(ANY_HOST, until=500.0)], 0.0)
    assert reason(cache, now=99.0) is Reason.CLIENT_DISTRUSTS_CA
    probe = cache.admit("a.test", UID, JA4, 101.0)
    assert isinstance(probe, InterceptNow)
    assert probe.reason is Reason.PROBATION


def test_it_goes_when_it_is_not_told_any_more(cache: TrustCache) -> None:
    cache.adopt((), [bypassed()], 0.0)
    cache.adopt((), [], 1.0)
    assert reason(cache) is None


def test_only_a_bypass_says_anything(cache: TrustCache) -> None:
    cache.adopt((), [bypassed(state=state) for state in State if state is not State.BYPASSED], 0.0)
    cache_entries = cache.heard()
    assert cache_entries == []
    assert reason(cache) is None


def test_it_is_not_told_on_as_our_own(cache: TrustCache) -> None:
    cache.adopt((Said("p.test", Word.PIN),), [bypassed(), CERTIFICATE], 0.0)
    assert reason(cache) is not None
    assert cache.entries(1.0) == []


def test_it_is_ignored_where_nothing_fails_open() -> None:
    cache = TrustCache(FailOpen(enabled=False, max_entries=64), "w")
    cache.adopt((), [bypassed(), bypassed(ANY_HOST), CERTIFICATE], 0.0)
    assert reason(cache) is None


def test_it_is_bounded(cache: TrustCache) -> None:
    cache.adopt((), [bypassed(f"{number}.test") for number in range(100)], 0.0)
    assert len(cache.heard()) == SETTINGS.max_entries


# What people said


def test_words_hold_until_they_are_not_told_any_more(cache: TrustCache) -> None:
    cache.adopt((Said("a.test", Word.PIN),), (), 0.0)
    assert reason(cache) is Reason.PINNED
    cache.adopt((Said("a.test", Word.APPROVE),), (), 1.0)
    admission = cache.admit("a.test", UID, JA4, 2.0)
    assert isinstance(admission, InterceptNow)
    assert admission.reason is Reason.APPROVED
    cache.adopt((), (), 2.0)
    assert reason(cache) is None


def test_an_approval_overrules_what_others_learned(cache: TrustCache) -> None:
    cache.adopt((Said("a.test", Word.APPROVE),), [bypassed()], 0.0)
    assert reason(cache) is None


def test_words_said_here_stay_and_come_first(cache: TrustCache) -> None:
    cache.approve("a.test", None, None, 0.0)
    cache.adopt((Said("a.test", Word.PIN), Said("b.test", Word.PIN)), (), 1.0)
    assert reason(cache) is None
    assert reason(cache, "b.test") is Reason.PINNED
    cache.adopt((), (), 2.0)
    assert [entry.state for entry in cache.entries(2.0)] == [State.APPROVED]


def test_the_more_specific_word_counts_wherever_it_was_said(cache: TrustCache) -> None:
    cache.approve("a.test", None, None, 0.0)
    cache.adopt((Said("a.test", Word.PIN, UID),), (), 1.0)
    assert reason(cache) is Reason.PINNED


def test_a_new_word_makes_forgotten_what_was_learned_about_it(cache: TrustCache) -> None:
    outcome(cache, Outcome.DISTRUSTED)
    word = Said("a.test", Word.APPROVE)
    cache.adopt((word,), (), 1.0)
    cache.adopt((), (), 2.0)
    assert reason(cache, now=3.0) is None


def test_a_word_told_again_is_not_new(cache: TrustCache) -> None:
    cache.adopt((Said("a.test", Word.APPROVE),), (), 0.0)
    outcome(cache, Outcome.TRUSTED, now=1.0)
    cache.adopt((Said("a.test", Word.APPROVE),), (), 2.0)
    (entry,) = cache.heard()
    assert (entry.first_seen, entry.successes) == (0.0, 1)


def test_forget_is_done_once(cache: TrustCache) -> None:
    outcome(cache, Outcome.DISTRUSTED)
    cache.remember_client_certificate("a.test", 0.0)
    forget = Said("a.test", Word.FORGET)
    cache.adopt((forget,), (), 1.0)
    assert [entry.host for entry in cache.entries(1.0)] == [ANY_HOST]
    outcome(cache, Outcome.DISTRUSTED, now=2.0)
    cache.adopt((forget,), (), 3.0)
    assert reason(cache, now=4.0) is Reason.CLIENT_DISTRUSTS_CA


def test_a_restart_keeps_all_of_it(cache: TrustCache) -> None:
    cache.adopt((Said("p.test", Word.PIN),), [bypassed(), CERTIFICATE], 0.0)
    again = TrustCache.load(cache.dump(1.0), SETTINGS, workload="w")
    assert again.heard() == cache.heard()
    assert reason(again) is not None
    assert reason(again, "p.test") is Reason.PINNED
    again.adopt((), (), 2.0)
    assert reason(again) is None
    assert reason(again, "p.test") is None


def test_each_message_is_a_new_revision(cache: TrustCache) -> None:
    before = cache.revision
    cache.adopt((), (), 0.0)
    assert cache.revision > before
