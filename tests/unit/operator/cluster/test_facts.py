"""What is read of pods and namespaces."""

import pytest

from weir_operator.cluster.facts import NamespaceFacts, PodFacts, Workload, namespace_facts, pod_facts, workload_of


def owned(kind, name, **metadata):
    owners = [{"kind": "Other", "name": "no"}, {"kind": kind, "name": name, "controller": True}]
    return {"name": "p", "ownerReferences": owners, **metadata}


def pod(spec=None, status=None, **metadata):
    metadata = {"namespace": "shop", "name": "web-1", "uid": "u1", **metadata}
    return pod_facts({"metadata": metadata, "spec": spec or {}, "status": status or {}})


def test_a_pod():
    assert pod() == PodFacts(
        namespace="shop",
        name="web-1",
        uid="u1",
        labels={},
        workload=Workload("Pod", "web-1"),
        captured=False,
        finished=False,
        host_network=False,
        windows=False,
        opted_out=False,
    )


def test_only_the_container_in_the_spec_makes_a_pod_captured():
    assert pod(spec={"initContainers": [{"name": "a"}, {"name": "weir-sidecar"}]}).captured
    assert not pod(spec={"containers": [{"name": "weir-sidecar"}]}).captured
    assert not pod(labels={"weir.dev/captured": "true"}).captured


@pytest.mark.parametrize(
    ("facts", "finished"),
    [
        (pod(status={"phase": "Running"}), False),
        (pod(status={"phase": "Succeeded"}), True),
        (pod(status={"phase": "Failed"}), True),
        (pod(deletionTimestamp="2026-01-01T00:00:00Z"), True),
    ],
)
def test_finished_pods(facts, finished):
    assert facts.finished is finished


NO_RULES, DONE = {"terminated": {"exitCode": 3}}, {"terminated": {"exitCode": 0}}


@pytest.mark.parametrize(
    ("state", "last", "refused"),
    [
        (NO_RULES, {}, True),  # restartPolicy Never: there is no state before
        ({"waiting": {"reason": "CrashLoopBackOff"}}, NO_RULES, True),
        ({"running": {}}, NO_RULES, True),
        (DONE, NO_RULES, False),
        ({"running": {}}, {}, False),
        ({"terminated": {"exitCode": 1}}, NO_RULES, False),
    ],
)
def test_an_init_container_that_found_no_rules_says_so_by_its_exit_status(state, last, refused):
    statuses = [{"name": "other", "state": NO_RULES}, {"name": "weir-init", "state": state, "lastState": last}]
    assert pod(status={"initContainerStatuses": statuses}).refused is refused
    assert not pod(status={"initContainerStatuses": statuses[:1]}).refused


def test_what_keeps_a_pod_from_being_captured():
    assert pod(spec={"hostNetwork": True}).host_network
    assert pod(spec={"os": {"name": "windows"}}).windows
    assert pod(spec={"nodeSelector": {"kubernetes.io/os": "windows"}}).windows
    assert not pod(spec={"os": {"name": "linux"}}).windows
    assert pod(labels={"weir.dev/inject": "false"}).opted_out
    assert not pod(labels={"weir.dev/inject": "no"}).opted_out
    assert pod(spec={"nodeName": "n1"}).node == "n1"


@pytest.mark.parametrize(
    ("metadata", "workload"),
    [
        ({"name": "p"}, Workload("Pod", "p")),
        ({"generateName": "p-"}, Workload("Pod", "p")),
        (
            owned("ReplicaSet", "web-5d9c7b", labels={"pod-template-hash": "5d9c7b"}),
            Workload("Deployment", "web"),
        ),
        (owned("ReplicaSet", "web-5d9c7b"), Workload("ReplicaSet", "web-5d9c7b")),
        (owned("ReplicaSet", "web", labels={"pod-template-hash": "5d9c7b"}), Workload("ReplicaSet", "web")),
        (owned("StatefulSet", "db"), Workload("StatefulSet", "db")),
        (owned("Job", "nightly-28912345"), Workload("CronJob", "nightly")),
        (owned("Job", "migrate-2"), Workload("Job", "migrate-2")),
        ({"name": "p", "ownerReferences": [{"kind": "Node", "name": "n"}]}, Workload("Pod", "p")),
    ],
)
def test_the_workload_is_what_people_name(metadata, workload):
    assert workload_of(metadata) == workload


def test_a_namespace():
    assert namespace_facts({"metadata": {"name": "a", "labels": {"b": "c"}}}) == NamespaceFacts("a", {"b": "c"})
    assert namespace_facts({"metadata": {"name": "a"}}) == NamespaceFacts("a", {})
