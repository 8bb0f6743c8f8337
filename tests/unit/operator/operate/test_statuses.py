from datetime import UTC, datetime

import pytest

from samples.worlds import EARLY, cluster_policy, exception, pod, policy, world
from weir_operator.operate.pods import tally
from weir_operator.operate.statuses import differs, statuses
from weir_operator.operate.world import key_of

NOW = datetime(2027, 2, 3, 4, 5, 6, tzinfo=UTC)
STAMP = "2027-02-03T04:05:06Z"


def status_of(one, *others, **more):
    made = world(one, *others, **more)
    return statuses(made, tally(made), NOW)[key_of(one)]


def condition(status, kind):
    return next(one for one in status["conditions"] if one["type"] == kind)


def test_a_policy_whose_pods_all_run_it():
    pods = [pod("a", captured=True), pod("b", captured=True)]
    status = status_of(policy(generation=3), pods=pods, current={"InterceptionPolicy/shop/p": 2})
    assert status == {
        "observedGeneration": 3,
        "conditions": [
            {
                "type": "Accepted",
                "status": "True",
                "observedGeneration": 3,
                "lastTransitionTime": STAMP,
                "reason": "Valid",
                "message": "the policy is used",
            },
            {
                "type": "Programmed",
                "status": "True",
                "observedGeneration": 3,
                "lastTransitionTime": STAMP,
                "reason": "UpToDate",
                "message": "2 of 2 captured pods run generation 3",
            },
            {
                "type": "Degraded",
                "status": "False",
                "observedGeneration": 3,
                "lastTransitionTime": STAMP,
                "reason": "NoneMissed",
                "message": "all selected pods are captured",
            },
        ],
        "pods": {"selected": 2, "captured": 2, "current": 2, "missed": 0},
        "missed": [],
    }


def test_one_whose_pods_are_still_told():
    pods = [pod("a", captured=True), pod("b", captured=True)]
    programmed = condition(status_of(policy(), pods=pods, current={"InterceptionPolicy/shop/p": 1}), "Programmed")
    assert (programmed["status"], programmed["reason"]) == ("False", "Updating")
    assert programmed["message"] == "1 of 2 captured pods run generation 1"


def test_one_with_what_waits_for_pods_to_start_anew_names_it():
    waits = {"InterceptionPolicy/shop/p": ("capture.mode", "credentialFrom.secret api/token")}
    programmed = condition(status_of(policy(), pods=[pod("a", captured=True)], waits=waits), "Programmed")
    assert (programmed["status"], programmed["reason"]) == ("False", "PodsNeedRestart")
    assert programmed["message"] == (
        "0 of 1 captured pods run generation 1; to be started anew for: capture.mode, credentialFrom.secret api/token"
    )


def test_summaries_that_lag_behind_never_say_more_than_there_is():
    status = status_of(cluster_policy(), pods=[pod("a", captured=True)], current={"ClusterInterceptionPolicy/c": 7})
    assert status["pods"]["current"] == 1


def test_one_that_misses_pods_says_how_many_and_why():
    pods = [pod(f"m{number:02}", created=EARLY) for number in range(11)] + [pod("h", host_network=True)]
    status = status_of(policy(), pods=pods)
    degraded = condition(status, "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "PodsMissed")
    assert degraded["message"] == "12 of 12 selected pods are not captured: 11 CreatedBefore, 1 HostNetwork"
    assert len(status["missed"]) == 10
    assert status["missed"][0] == {"namespace": "shop", "name": "h", "reason": "HostNetwork"}
    assert status["pods"]["missed"] == 12


def test_one_that_cannot_be_used_says_what_is_wrong():
    status = status_of(policy(defaultAction="Sometimes"), pods=[pod("a")])
    accepted = condition(status, "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert "defaultAction" in accepted["message"]
    assert "Sometimes" in accepted["message"]
    assert condition(status, "Programmed")["reason"] == "NotAccepted"


def test_one_that_is_used_in_spite_of_a_lost_reference_tells_of_its_pods():
    one = policy(trustPolicyRef={"name": "gone"})
    status = status_of(one, pods=[pod("a", captured=True)])
    assert condition(status, "Accepted")["status"] == "False"
    assert condition(status, "Programmed")["reason"] == "Updating"
    assert status["pods"]["captured"] == 1


def test_a_policy_without_pods_is_programmed():
    programmed = condition(status_of(policy()), "Programmed")
    assert (programmed["status"], programmed["reason"]) == ("True", "NoPods")


def test_a_trust_policy_says_who_refers_to_it():
    trust = policy("t", kind="TrustPolicy")
    users = [policy(f"p{number:02}", trustPolicyRef={"name": "t"}) for number in range(12)]
    elsewhere = policy("x", "other", trustPolicyRef={"name": "t"})
    status = status_of(trust, *users, elsewhere)
    assert status["references"] == 12
    assert status["referredBy"] == [f"InterceptionPolicy/shop/p{number:02}" for number in range(10)]
    assert condition(status, "Accepted")["status"] == "True"


def test_a_cluster_trust_policy_is_referred_to_by_its_kind():
    trust = policy("t", None, kind="ClusterTrustPolicy")
    status = status_of(trust, policy(trustPolicyRef={"name": "t", "kind": "ClusterTrustPolicy"}))
    assert status["referredBy"] == ["InterceptionPolicy/shop/p"]


@pytest.mark.parametrize(("decision", "decided"), [(None, "False"), ("Intercept", "True"), ("Passthrough", "True")])
def test_an_exception_says_whether_a_person_decided(decision, decided):
    status = status_of(exception(decision=decision))
    assert condition(status, "Accepted")["status"] == "True"
    assert (condition(status, "Decided")["status"], condition(status, "Decided")["reason"]) == (
        decided,
        decision or "Auto",
    )


def test_an_exception_for_what_is_no_host_is_not_accepted():
    accepted = condition(status_of(exception(host="https://a.example")), "Accepted")
    assert accepted["status"] == "False"
    assert "https://a.example" in accepted["message"]


def test_of_an_exception_only_the_conditions_and_their_generation_are_the_operators():
    assert set(status_of(exception(status={"state": "Bypassed"}))) == {"observedGeneration", "conditions"}


def test_the_time_of_transition_moves_with_the_status_and_not_with_the_message():
    old = "2026-01-01T00:00:00Z"
    before = status_of(policy(), pods=[pod("a", captured=True)])
    for one in before["conditions"]:
        one["lastTransitionTime"] = old
    after = status_of(policy(status=before), pods=[pod("a", captured=True), pod("b", captured=True), pod("c")])
    assert condition(after, "Accepted")["lastTransitionTime"] == old
    assert condition(after, "Programmed")["lastTransitionTime"] == old  # was Updating, is Updating
    assert condition(after, "Programmed")["message"] != condition(before, "Programmed")["message"]
    assert condition(after, "Degraded")["lastTransitionTime"] == STAMP


def test_a_status_that_is_what_it_ought_to_be_does_not_differ():
    pods = [pod("a", captured=True), pod("b")]
    wanted = status_of(policy(), pods=pods)
    one = policy(status=wanted | {"ofSomebodyElse": 1})
    assert not differs(one, status_of(one, pods=pods))
    assert differs(one, status_of(one, pods=pods[:1]))
    assert differs(policy(), wanted)


def test_a_message_is_bounded():
    rules = [{"action": "Deny", "nonsense": 1, "match": {"hosts": ["https://no"] * 3}} for _ in range(200)]
    for one in status_of(policy(rules=rules))["conditions"]:
        assert len(one["message"]) <= 1024
