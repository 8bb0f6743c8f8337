"""What is asked of the API server for pods that slipped through. The real one is in tests/cluster."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from samples.worlds import pod, policy, world
from weir_operator.cluster.facts import Workload
from weir_operator.kube.errors import ApiError, Reason
from weir_operator.operate.metrics import Metrics, Repair
from weir_operator.operate.pods import MissedReason, tally
from weir_operator.operate.repair import SETTLED, Choice, Mode
from weir_operator.operate.repairer import Repairer

NOW = datetime(2027, 2, 3, 12, tzinfo=UTC)
PLUGIN, WEBHOOK = MissedReason.PLUGIN_MISSED, MissedReason.WEBHOOK_MISSED


class Server:
    def __init__(self):
        self.events, self.evicted, self.labels, self.failing = [], [], [], None

    async def create(self, path, obj):
        if path.startswith("/apis/events.k8s.io/v1/"):
            self.events.append((obj["regarding"]["name"], obj["reason"], obj["note"]))
            return
        if self.failing:
            raise ApiError(429, self.failing, "Cannot evict pod as it would violate the budget")
        assert path == f"/api/v1/namespaces/shop/pods/{obj['metadata']['name']}/eviction"
        self.evicted.append((obj["metadata"]["name"], obj["deleteOptions"]["preconditions"]["uid"]))

    async def patch(self, path, patch, _kind, _params):
        if self.failing:
            raise ApiError(409, self.failing, "as the test wants")
        self.labels.append((path.rsplit("/", 1)[1], patch["metadata"]["uid"], *patch["metadata"]["labels"].values()))


class Lab:
    def __init__(self, **modes):
        self.now = NOW
        self.server, self.metrics = Server(), Metrics()
        choice = Choice({PLUGIN: modes.get("cni", Mode.NONE), WEBHOOK: modes.get("webhook", Mode.NONE)})
        self.repairer = Repairer(self.server, choice, lambda: self.now, self.metrics, lambda: None)

    def run(self, *pods, later=timedelta()):
        self.now += later
        seen = world(policy(), pods=pods)
        return asyncio.run(self.repairer.run(seen, tally(seen)))


def of_web(name, **more):
    return msgspec.structs.replace(pod(name, **more), workload=Workload("Deployment", "web"))


@pytest.mark.parametrize(
    ("mode", "words"),
    [(Mode.IN_PLACE, "agent of its node repairs it"), (Mode.DELETE, "It is evicted"), (Mode.NONE, "Make it anew.")],
)
def test_a_pod_without_rules_has_one_event_and_another_when_it_is_captured(mode, words):
    lab, slipped = Lab(cni=mode), of_web("web-1", captured=True, refused=True)
    fine = msgspec.structs.replace(slipped, refused=False)
    for one in (slipped, slipped, fine):
        assert lab.run(one, later=timedelta(seconds=1)) == 0
    lab.run(fine, later=SETTLED)
    (_, first, note), (_, second, _) = lab.server.events
    assert (first, second) == ("NotCaptured", "CapturedAtLast")
    assert words in note
    assert lab.metrics.repairs[Repair.CAPTURED] == 1
    assert (lab.server.evicted, lab.server.labels) == ([], [])


def test_labelled_and_no_longer():
    lab, slipped = Lab(cni=Mode.LABEL), pod("a", captured=True, refused=True)
    lab.run(slipped)
    labelled = {"weir.dev/missed": "PluginMissed"}
    lab.run(msgspec.structs.replace(slipped, labels=labelled))
    lab.run(msgspec.structs.replace(slipped, labels=labelled, refused=False), later=SETTLED)
    assert lab.server.labels == [("a", "uid-a", "PluginMissed"), ("a", "uid-a", None)]
    assert (lab.metrics.repairs[Repair.LABELLED], lab.metrics.repairs[Repair.UNLABELLED]) == (1, 1)


def test_evicted_as_it_was_seen_and_told():
    lab = Lab(webhook=Mode.DELETE)
    for _ in range(2):
        assert lab.run(of_web("web-1"), pod("bare"), later=SETTLED) == 0
    assert lab.server.evicted == [("web-1", "uid-web-1")]
    assert {(name, reason) for name, reason, _ in lab.server.events} == {
        ("web-1", "NotCaptured"),
        ("web-1", "EvictedToCapture"),
        ("bare", "NotCaptured"),
    }
    assert next(note for name, _, note in lab.server.events if name == "bare").endswith("make it anew.")


def test_a_budget_is_respected_told_and_asked_again():
    lab = Lab(webhook=Mode.DELETE)
    lab.server.failing = Reason.TOO_MANY_REQUESTS
    for _ in range(2):
        assert lab.run(of_web("web-1"), later=SETTLED) == 0
    assert [reason for _, reason, _ in lab.server.events] == ["NotCaptured", "EvictionBlocked"]
    assert lab.metrics.repairs[Repair.BLOCKED] == 1
    lab.server.failing = None
    lab.run(of_web("web-1"), later=timedelta(minutes=1))
    assert lab.server.evicted == [("web-1", "uid-web-1")]


@pytest.mark.parametrize(("reason", "failed"), [(Reason.CONFLICT, 0), (Reason.NOT_FOUND, 0), (Reason.FORBIDDEN, 1)])
def test_a_pod_that_has_ended_meanwhile_is_no_failure_and_a_missing_right_is(reason, failed):
    lab = Lab(webhook=Mode.LABEL)
    lab.server.failing = reason
    assert lab.run(pod("a")) == failed
