import msgspec
import pytest

from samples.worlds import EARLY, LATE, MIDDLE, cluster_policy, pod, policy, world
from weir_operator.operate.pods import Missed, MissedReason, Tally, missed_by_reason, tally, why
from weir_operator.operate.world import key_of

SELECTOR = {"matchLabels": {"app": "web"}}


def tally_of(one, **more):
    return tally(world(one, **more))[key_of(one)]


def test_pods_that_a_policy_selects_are_counted_and_others_are_not():
    pods = [
        pod("captured", captured=True),
        pod("missed"),
        pod("ended", finished=True),
        pod("unselected", labels={"app": "db"}),
        pod("elsewhere", "other"),
    ]
    found = tally_of(policy(podSelector=SELECTOR), pods=pods)
    assert found == Tally(2, 1, (Missed("shop", "missed", MissedReason.WEBHOOK_MISSED),))


def test_a_cluster_policy_counts_in_all_namespaces_but_those_that_are_never_offered():
    pods = [pod("a", "shop", captured=True), pod("b", "other", captured=True), pod("c", "kube-system")]
    assert tally_of(cluster_policy(), pods=pods) == Tally(2, 2)


def test_a_namespace_selector_narrows_it():
    one = cluster_policy(namespaceSelector={"matchLabels": {"kubernetes.io/metadata.name": "other"}})
    assert tally_of(one, pods=[pod("a"), pod("b", "other", captured=True)]) == Tally(1, 1)


def test_a_pod_whose_namespace_is_not_known_yet_waits():
    assert tally_of(cluster_policy(), pods=[pod("a", "new")]) == Tally()


def test_a_policy_that_takes_no_part_has_no_pods():
    one = policy(defaultAction="Sometimes")
    assert tally_of(one, pods=[pod("a")]) == Tally()


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"windows": True, "host_network": True}, MissedReason.WINDOWS),
        ({"static": True, "host_network": True}, MissedReason.STATIC_POD),
        ({"host_network": True, "opted_out": True}, MissedReason.HOST_NETWORK),
        ({"opted_out": True, "created": EARLY}, MissedReason.OPTED_OUT),
        ({"created": EARLY}, MissedReason.CREATED_BEFORE),
        ({"created": MIDDLE}, MissedReason.CREATED_BEFORE),
        ({"created": LATE}, MissedReason.WEBHOOK_MISSED),
    ],
)
def test_why_a_pod_is_not_captured(facts, reason):
    assert why(pod("a", **facts), MIDDLE, cluster=False) is reason


def test_where_a_cluster_policy_selects_it_a_pods_wish_to_be_left_alone_does_not_count():
    one = pod("a", opted_out=True)
    assert why(one, MIDDLE, cluster=True) is MissedReason.WEBHOOK_MISSED
    own, whole = policy(), cluster_policy()
    found = tally(world(own, whole, pods=[one]))
    assert found[key_of(own)].missed[0].reason is MissedReason.WEBHOOK_MISSED


def test_a_pod_with_a_sidecar_and_no_rules_is_missed():
    pods = [pod("fine", captured=True), pod("open", captured=True), pod("closed", captured=True, refused=True)]
    found = tally(msgspec.structs.replace(world(policy(), pods=pods), uncaptured=frozenset({"uid-open"})))
    missed = (Missed("shop", name, MissedReason.PLUGIN_MISSED) for name in ("closed", "open"))
    assert found[key_of(policy())] == Tally(3, 1, tuple(missed))


def test_by_reason_each_pod_counts_once():
    found = tally(world(policy(), cluster_policy(), pods=[pod("a"), pod("b", host_network=True)]))
    counted = missed_by_reason(found.values())
    assert counted[MissedReason.WEBHOOK_MISSED] == counted[MissedReason.HOST_NETWORK] == 1
    assert set(counted) == set(MissedReason)
