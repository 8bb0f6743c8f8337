import json

import pytest

from samples.worlds import LATE, MIDDLE, cluster_policy, exception, policy
from weir_operator.operate.world import changed_at, key_of, path_of, told


def summary(**counts):
    told = {"policies": {key: {"connected": 9, "current": count} for key, count in counts.items()}}
    return {"data": {"summary": json.dumps(told)}}


def test_where_objects_are():
    assert path_of(key_of(exception())) == "/apis/weir.dev/v1alpha1/namespaces/shop/trustexceptions/e"
    assert path_of(key_of(cluster_policy())) == "/apis/weir.dev/v1alpha1/clusterinterceptionpolicies/c"


def test_summaries_of_all_replicas_are_added_up():
    assert told([summary(a=1, b=2), summary(b=3)]).current == {"a": 1, "b": 5}


def test_pods_without_rules_are_those_of_all_replicas():
    # A replica of before does not tell of any.
    some = [{"data": {"summary": json.dumps({"uncaptured": uids})}} for uids in (["x", "y"], ["y", "z"])]
    assert told([summary(a=1), *some]).uncaptured == {"x", "y", "z"}


def test_what_waits_is_what_any_replica_told():
    some = [
        {"data": {"summary": json.dumps({"waits": waits})}} for waits in ({"p": ["b"]}, {"p": ["a", "b"], "q": ["c"]})
    ]
    assert told([summary(p=1), *some]).waits == {"p": ("a", "b"), "q": ("c",)}


@pytest.mark.parametrize("data", [{}, {"data": None}, {"data": {"summary": "nonsense"}}, {"data": {"summary": "[]"}}])
def test_a_summary_that_cannot_be_read_counts_as_none(data):
    assert told([data, summary(a=1)]).current == {"a": 1}


def entry(time, **more):
    return {"time": time, "fieldsV1": {"f:spec": {}}} | more


def test_a_spec_was_written_when_the_last_of_its_writers_did():
    one = policy()
    assert changed_at(one) == MIDDLE
    one["metadata"]["managedFields"] = [entry("2027-01-01T11:30:00Z"), entry(LATE)]
    assert changed_at(one) == LATE


def test_labels_and_statuses_are_not_the_spec():
    one = policy()
    one["metadata"]["managedFields"] = [entry(LATE, subresource="status"), entry(LATE, fieldsV1={"f:metadata": {}})]
    assert changed_at(one) == MIDDLE
