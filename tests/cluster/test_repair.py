"""What is done about pods that slipped through, with the chart's rights, on a real API server."""

import asyncio
import shutil
from datetime import UTC, datetime

import pytest

from lab.operator import bare_pod, installed_roles
from samples.worlds import policy, world
from weir_operator.cluster.facts import pod_facts
from weir_operator.kube.client import Client
from weir_operator.operate.metrics import Metrics, Repair
from weir_operator.operate.pods import MissedReason, tally
from weir_operator.operate.repair import SETTLED, Choice, Mode
from weir_operator.operate.repairer import Repairer

pytestmark = pytest.mark.cluster
LABEL, DELETE = {MissedReason.WEBHOOK_MISSED: Mode.LABEL}, {MissedReason.WEBHOOK_MISSED: Mode.DELETE}


class Lab:
    """Pods in a namespace that a policy selects, and that have no sidecar."""

    def __init__(self, cluster, namespace, home):
        self.cluster, self.namespace = cluster, namespace
        self.kubeconfig = cluster.kubeconfig_for(home, "weir-operator")
        self.now = datetime.now(UTC)
        self.metrics = Metrics()
        self.path = f"/api/v1/namespaces/{namespace}"

    def request(self, method, path, body=None):
        answer = self.cluster.request(method, path, body)
        assert answer.ok, answer.text
        return answer.json()

    def add(self, name, *, owned):
        made = bare_pod(name)
        if owned:
            owner = self.request("POST", f"{self.path}/configmaps", {"metadata": {"name": f"owner-of-{name}"}})
            reference = {"apiVersion": "v1", "kind": "ConfigMap", "controller": True}
            reference |= {key: owner["metadata"][key] for key in ("name", "uid")}
            made["metadata"]["ownerReferences"] = [reference]
        self.request("POST", f"{self.path}/pods", made)

    def pods(self):
        return {one["metadata"]["name"]: one for one in self.request("GET", f"{self.path}/pods")["items"]}

    def events(self):
        found = self.request("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        return {(one["regarding"]["name"], one["reason"]) for one in found}

    def repair(self, modes, *, seen=None, times=2):
        """Runs of the operator, each a while later; `seen`: pods as they were seen, if that is some time ago."""

        async def main():
            async with Client.from_environment(str(self.kubeconfig)) as client:
                repairer = Repairer(client, Choice(modes), lambda: self.now, self.metrics, lambda: None)
                for _ in range(times):
                    facts = [pod_facts(one) for one in (seen or self.pods()).values()]
                    one = policy(namespace=self.namespace)
                    one["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
                    known = world(one, pods=facts, namespaces=(self.namespace,))
                    assert await repairer.run(known, tally(known)) == 0
                    self.now += SETTLED

        asyncio.run(main())


@pytest.fixture
def lab(cluster, namespace):
    if shutil.which("helm") is None:
        pytest.skip("no helm on PATH: the operator's roles are the chart's")
    values = ("webhook.repair.mode=Delete", "cni.enabled=true", "cni.repair.mode=Label")
    with cluster.namespace(prefix="weir-home") as home, installed_roles(cluster, home, *values):
        yield Lab(cluster, namespace, home)


def test_pods_are_told_labelled_and_evicted(lab):
    lab.add("owned", owned=True)
    lab.add("bare", owned=False)
    lab.repair(LABEL)
    assert {one["metadata"]["labels"].get("weir.dev/missed") for one in lab.pods().values()} == {"WebhookMissed"}
    assert lab.events() == {("owned", "NotCaptured"), ("bare", "NotCaptured")}
    seen = lab.pods()
    # A pod of the same name that came after is another one, and is left alone.
    lab.request("DELETE", f"{lab.path}/pods/owned")
    lab.add("owned2", owned=True)
    lab.request("POST", f"{lab.path}/pods", bare_pod("owned"))
    lab.repair(DELETE, seen=seen)
    assert set(lab.pods()) == {"owned", "owned2", "bare"}
    assert lab.metrics.repairs[Repair.EVICTED] == 0
    lab.repair(DELETE)
    assert set(lab.pods()) == {"owned", "bare"}
    assert ("owned2", "EvictedToCapture") in lab.events()
    assert lab.metrics.repairs[Repair.EVICTED] == 1
