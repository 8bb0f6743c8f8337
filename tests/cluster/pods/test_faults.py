"""The control plane fails: running pods are not disturbed, new ones start or wait as chosen, and nothing is lost after."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.weir_cluster import SYSTEM, within
from lab.workloads import caller, policy

pytestmark = [pytest.mark.cluster, pytest.mark.pods]

MUTATING = "mutatingwebhookconfiguration/weir-mutating"


class Creations:
    """Pods created at a steady rate; they wait behind a scheduling gate and never run."""

    def __init__(self, weir, namespace, rate=20):
        self.answers = []
        self._weir, self._namespace, self._pause = weir, namespace, 1 / rate
        self._stop = threading.Event()
        self._workers = []

    def run(self):
        number = 0
        begun = time.monotonic()
        while not self._stop.wait(max(0, begun + number * self._pause - time.monotonic())):
            number += 1
            worker = threading.Thread(target=self._create, args=(number,))
            worker.start()
            self._workers.append(worker)

    def end(self):
        self._stop.set()
        for worker in self._workers:
            worker.join()

    def uncaptured(self):
        """What came of those that are not as they should be."""
        return [(status, words) for status, captured, words in self.answers if status != 201 or not captured]

    def _create(self, number):
        pod = caller(f"gated-{number}", "nowhere.example", count=1, schedulingGates=[{"name": "weir.dev/test"}])
        # A session of its own: another thread's keep-alive is not ours.
        answer = self._weir.cluster.request("POST", f"/api/v1/namespaces/{self._namespace}/pods", pod)
        made = answer.json()
        captured = any(one["name"] == "weir-sidecar" for one in made.get("spec", {}).get("initContainers", ()))
        self.answers.append((answer.status_code, captured, "" if captured else str(made)[:300]))


@contextmanager
def creating(weir, namespace) -> Iterator[Creations]:
    creations = Creations(weir, namespace)
    thread = threading.Thread(target=creations.run)
    thread.start()
    try:
        yield creations
    finally:
        creations.end()
        thread.join()


def ready(weir):
    """The names of the control plane's pods that are ready and stay."""
    return {
        pod["metadata"]["name"]
        for pod in weir.get("pods", "-n", SYSTEM)["items"]
        if "deletionTimestamp" not in pod["metadata"]
        and ("Ready", "True") in {(one["type"], one["status"]) for one in pod["status"].get("conditions", ())}
    }


def failure_policy(weir, word):
    patch = f'[{{"op":"replace","path":"/webhooks/0/failurePolicy","value":"{word}"}}]'
    weir.kubectl("patch", MUTATING, "--type=json", "--patch", patch)


@pytest.mark.timeout(300)
def test_both_replicas_are_replaced_under_creations(weir, shop, note):
    weir.apply(policy("all", shop))
    time.sleep(1)
    with creating(weir, shop) as creations:
        time.sleep(2)
        weir.kubectl("rollout", "restart", "deployment/weir-serving", "-n", SYSTEM)
        weir.wait_rolled_out(SYSTEM, "weir-serving")
        time.sleep(2)
    assert creations.uncaptured() == []
    note.append(f"{len(creations.answers)} pods created at 20 a second while both replicas were replaced, 0 failed")


@pytest.mark.timeout(300)
def test_certificates_are_rotated_under_creations(weir, shop, note):
    weir.apply(policy("all", shop))
    time.sleep(1)
    before = weir.get("secret", "weir-serving", "-n", SYSTEM)["data"]["tls.crt"]
    with creating(weir, shop) as creations:
        time.sleep(1)
        weir.kubectl("annotate", "secret", "weir-serving", "-n", SYSTEM, "weir.dev/rotate=now", "--overwrite")
        within(
            30,
            "a new certificate",
            lambda: weir.get("secret", "weir-serving", "-n", SYSTEM)["data"]["tls.crt"] != before,
        )
        time.sleep(3)
    assert creations.uncaptured() == []
    note.append(f"{len(creations.answers)} pods created at 20 a second over a rotation, 0 failed")


@pytest.mark.timeout(300)
def test_a_control_plane_that_is_killed_disturbs_no_running_pod(weir, origin, shop, note):
    weir.apply(policy("all", shop))
    pod = caller("steady", origin.host, pause=0.02)
    weir.apply({**pod, "metadata": {**pod["metadata"], "namespace": shop}})
    weir.wait_phase(shop, "steady", "Running")
    weir.wait_calls(shop, "steady", lambda call: call["ok"])
    before = ready(weir)
    weir.kubectl("delete", "pods", "--all", "-n", SYSTEM, "--force", "--grace-period=0")
    # The Deployments' own status still counts the killed ones for a while.
    within(90, "another control plane is ready", lambda: len(ready(weir) - before) == len(before))
    weir.apply(policy("all", shop, rules=[{"name": "no", "match": {"hosts": [origin.host]}, "action": "Deny"}]))
    reached = within(60, "the new policy", lambda: not weir.calls(shop, "steady")[-1]["ok"])
    calls = weir.calls(shop, "steady")
    first_denied = next(number for number, call in enumerate(calls) if not call["ok"])
    assert first_denied > 20
    assert all(not call["ok"] for call in calls[first_denied:])
    note.append(
        f"control plane killed: {first_denied} calls, 0 failed; the next policy was there after {reached:.1f} s"
    )


@pytest.mark.timeout(300)
def test_without_the_webhook_pods_start_or_wait_as_chosen(weir, shop):
    weir.apply(policy("all", shop))
    time.sleep(1)
    weir.kubectl("scale", "deployment/weir-serving", "-n", SYSTEM, "--replicas=0")
    try:
        within(60, "no replica", lambda: weir.pods(SYSTEM, "app.kubernetes.io/component=serving") == [])
        creations = Creations(weir, shop)
        creations._create(1)
        (answer,) = creations.answers
        assert answer[:2] == (201, False)
        failure_policy(weir, "Fail")
        creations._create(2)
        assert creations.answers[1][0] == 500
        assert "weir" in creations.answers[1][2]
    finally:
        failure_policy(weir, "Ignore")
        weir.kubectl("scale", "deployment/weir-serving", "-n", SYSTEM, "--replicas=2")
        weir.wait_rolled_out(SYSTEM, "weir-serving")

    def missed():
        status = weir.get("interceptionpolicy", "all", "-n", shop).get("status") or {}
        return [(one["name"], one["reason"]) for one in status.get("missed") or ()]

    within(30, "the missed pod on the policy's status", lambda: missed() == [("gated-1", "WebhookMissed")])
