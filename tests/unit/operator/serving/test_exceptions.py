"""TrustExceptions: merged whatever the order, told to whom they are about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_operator.cluster.facts import Workload
from weir_operator.models import ExceptionDecision
from weir_operator.serving.exceptions import (
    MAX_NAME,
    MAX_PODS,
    ExceptionFacts,
    Seen,
    Subject,
    exception_facts,
    merge,
    message,
    new_object,
    object_name,
    read_seen,
    write_seen,
)
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.stream import HEARSAY_SECONDS
from weir_sidecar.contract.trust import Said, State, Told, Word

NOW = 1_800_000_000.0
WEB = Workload("Deployment", "web")
JA4 = "t13d1516h2_8daaf6152771_02713d6af862"

times = st.floats(min_value=0, max_value=2 * NOW)
tolds = st.builds(
    Told,
    host=st.just("a.example"),
    state=st.sampled_from(State),
    reason=st.none() | st.sampled_from(Reason),
    alert=st.none() | st.integers(0, 255),
    failures=st.integers(0, 9),
    successes=st.integers(0, 9),
    first_seen=times,
    last_seen=times,
    expires_at=st.none() | times,
)


def told(state, last=NOW - 10, ends=None, **more):
    return Told("a.example", state, first_seen=last, last_seen=last, expires_at=ends, **more)


def merged(*reports, now=NOW):
    seen = None
    for pod, report in reports:
        seen = merge(seen, report, pod, now)
    return seen


class TestMerge:
    @given(st.lists(st.tuples(st.sampled_from("abc"), tolds), min_size=1, max_size=6))
    def test_what_is_told_again_changes_nothing(self, reports):
        seen = merged(*reports)
        pod, report = reports[-1]
        assert merge(seen, report, pod, NOW) == seen

    @given(st.lists(st.tuples(st.sampled_from("abc"), tolds), min_size=1, max_size=6))
    def test_a_status_is_read_as_it_was_written(self, reports):
        seen = merged(*reports)
        assert read_seen(write_seen(seen, None)) == seen

    @given(st.lists(st.tuples(st.sampled_from("abc"), tolds), min_size=1, max_size=6))
    def test_no_pods_clock_is_believed_beyond_now(self, reports):
        seen = merged(*reports)
        assert seen.first_seen <= seen.last_seen <= NOW
        assert seen.expires_at is None or seen.expires_at <= NOW + 366 * 86400

    @given(st.permutations([("a", told(State.BYPASSED, NOW - 9, NOW + 60)), ("b", told(State.TRUSTED, NOW - 5))]))
    def test_the_latest_word_counts_in_any_order(self, reports):
        assert merged(*reports).state is State.TRUSTED

    def test_failing_does_not_undo_a_bypass_that_runs(self):
        seen = merged(("a", told(State.BYPASSED, NOW - 9, NOW + 60)), ("b", told(State.FAILING, NOW - 5)))
        assert (seen.state, seen.expires_at) == (State.BYPASSED, NOW + 60)
        assert seen.last_seen == NOW - 5

    def test_failing_after_the_end_of_a_bypass_counts(self):
        seen = merged(("a", told(State.BYPASSED, NOW - 90, NOW - 60)), ("b", told(State.FAILING, NOW - 5)))
        assert seen.state is State.FAILING
        assert seen.expires_at is None

    def test_failing_does_not_undo_a_probe(self):
        assert merged(("a", told(State.PROBATION)), ("b", told(State.FAILING, NOW - 5))).state is State.PROBATION

    def test_counts_are_the_most_that_one_pod_saw(self):
        seen = merged(("a", told(State.FAILING, failures=3)), ("b", told(State.FAILING, failures=2, successes=1)))
        assert (seen.failures, seen.successes) == (3, 1)

    def test_some_pods_are_named(self):
        reports = [(f"pod-{number}", told(State.FAILING)) for number in range(MAX_PODS + 5)]
        seen = merged(*reports)
        assert seen.pods == tuple(f"pod-{number}" for number in range(5, MAX_PODS + 5))

    def test_what_others_keep_in_the_status_stays(self):
        before = {"conditions": [{"type": "Decided"}], "state": "Bypassed", "expiresAt": "2027-01-01T00:00:00Z"}
        after = write_seen(Seen(State.TRUSTED), before)
        assert after["conditions"] == before["conditions"]
        assert after["state"] == "Trusted"
        assert "expiresAt" not in after


class TestObjects:
    def test_an_object_is_read_as_it_was_made(self):
        subject = Subject(WEB, "a.example", 1000, JA4)
        obj = new_object("shop", "n", subject)
        assert exception_facts(obj) == ExceptionFacts("shop", "n", subject, ExceptionDecision.AUTO, None)

    def test_what_is_not_known_of_the_app_is_left_out(self):
        assert "app" not in new_object("shop", "n", Subject(WEB, "a.example"))["spec"]

    @given(st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,100}[a-z0-9])?", fullmatch=True), st.text(max_size=20))
    def test_names_are_short_and_end_well(self, workload, host):
        name = object_name(Subject(Workload("Job", workload), host, 0, JA4))
        assert len(name) <= MAX_NAME
        assert name[0].isalnum()
        assert "--" not in name.removeprefix(workload[:40]) or "--" in workload

    def test_names_differ_with_all_that_an_exception_is_about(self):
        subjects = [
            Subject(WEB, "a.example"),
            Subject(WEB, "b.example"),
            Subject(Workload("StatefulSet", "web"), "a.example"),
            Subject(WEB, "a.example", 0),
            Subject(WEB, "a.example", None, JA4),
        ]
        assert len({object_name(subject) for subject in subjects}) == len(subjects)


def exception(name="e", workload=WEB, decision=ExceptionDecision.AUTO, *, seen=None, uid=None):
    return ExceptionFacts("shop", name, Subject(workload, "a.example", uid), decision, seen)


BYPASSED = Seen(State.BYPASSED, Reason.CLIENT_DISTRUSTS_CA, 48, expires_at=NOW + 60)


class TestMessage:
    def told(self, *exceptions, share=True):
        return message(exceptions, WEB, share=share, now=NOW)

    def test_a_bypass_is_told_to_the_workload(self):
        (learned,) = self.told(exception(seen=BYPASSED)).learned
        assert (learned.host, learned.state, learned.alert, learned.expires_at) == (
            "a.example",
            State.BYPASSED,
            48,
            NOW + 60,
        )

    @pytest.mark.parametrize(
        "one",
        [
            exception(seen=BYPASSED, workload=Workload("Deployment", "other")),
            exception(seen=BYPASSED, workload=Workload("StatefulSet", "web")),
            exception(seen=Seen(State.BYPASSED, expires_at=NOW - HEARSAY_SECONDS - 1)),
            exception(seen=Seen(State.FAILING)),
            exception(seen=Seen(State.TRUSTED)),
            exception(seen=None),
            exception(workload=Workload("Deployment", "other"), decision=ExceptionDecision.PASSTHROUGH),
        ],
    )
    def test_what_is_not_told(self, one):
        told = self.told(one)
        assert not told.learned
        assert not told.said

    def test_a_bypass_is_told_for_a_while_after_its_end(self):
        (learned,) = self.told(exception(seen=Seen(State.BYPASSED, expires_at=NOW - 1))).learned
        assert learned.expires_at == NOW - 1

    def test_a_bypass_that_is_not_to_be_shared_is_not(self):
        assert not self.told(exception(seen=BYPASSED), share=False).learned

    def test_a_persons_word_is_told_instead_of_what_was_seen(self):
        told = self.told(exception(seen=BYPASSED, decision=ExceptionDecision.INTERCEPT), share=False)
        assert told.said == (Said("a.example", Word.APPROVE),)
        assert not told.learned

    def test_of_two_words_on_the_same_the_workloads_own_holds(self):
        told = self.told(
            exception("z", WEB, ExceptionDecision.INTERCEPT), exception("a", None, ExceptionDecision.PASSTHROUGH)
        )
        assert told.said == (Said("a.example", Word.APPROVE),)

    def test_words_on_other_clients_stand_beside_it(self):
        told = self.told(
            exception("a", None, ExceptionDecision.PASSTHROUGH), exception("b", WEB, ExceptionDecision.INTERCEPT, uid=1)
        )
        assert told.said == (Said("a.example", Word.PIN), Said("a.example", Word.APPROVE, 1))
