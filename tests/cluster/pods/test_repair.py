"""Pods that started while the CNI plugin, or the webhook, was away: each way of repair, with real pods.

WEIR_TEST_CNI_CONF_DIR and WEIR_TEST_CNI_BIN_DIR say where the nodes have their CNI configuration and plugins, if elsewhere.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.place import Mode
from lab.running import wait_for
from lab.weir_cluster import CHART, SYSTEM, WeirCluster, within
from lab.workloads import IMAGE, SIDECAR_IMAGE, caller, deployment, policy

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(400)]
CONF_DIR = os.environ.get("WEIR_TEST_CNI_CONF_DIR", "/etc/cni/net.d")
NODE = "app.kubernetes.io/component=node"
SERVING = "app.kubernetes.io/component=serving"

# One connection, a request each 0.2 s; tells each answer, and who signed for the server.
_HELD = """
import http.client, json, ssl, sys, time
context = ssl.create_default_context(); context.verify_flags &= ~ssl.VERIFY_X509_STRICT
connection = http.client.HTTPSConnection(sys.argv[1], 443, timeout=20, context=context); connection.connect()
issuer = dict(part[0] for part in connection.sock.getpeercert()["issuer"]).get("organizationName", "")
connection.auto_open = 0
while True:
    began = time.time(); connection.request("GET", "/"); answer = connection.getresponse().read().decode().strip()
    print(json.dumps({"at": began, "ok": answer == "hello from origin", "weir": issuer == "Weir"}), flush=True)
    time.sleep(0.2)
"""
_TAKE_OUT = """
import json, os, sys
for name in os.listdir("/net.d"):
    if name.endswith(".conflist"):
        path = "/net.d/" + name; found = json.load(open(path))
        found["plugins"] = [one for one in found["plugins"] if one["type"] != "weir-cni"]
        json.dump(found, open(path + ".part", "w")); os.rename(path + ".part", path)
"""
_IS_IN = "import glob; print(any('weir-cni' in open(one).read() for one in glob.glob('/net.d/*.conflist')))"
_LOSE = """
from weir_sidecar.netsetup.nftables import Nft
with Nft() as nft: nft.run("delete table inet weir")
"""
_ASK = (
    "import sys,urllib.request; print(urllib.request.urlopen('http://localhost:15802' + sys.argv[1]).read().decode())"
)


class Plugin:
    """The CNI plugin of the one node, which can be taken away: its entry and its agent."""

    def __init__(self, weir: WeirCluster, namespace: str) -> None:
        self._weir = weir
        self._namespace = namespace
        mount = {"name": "conf", "mountPath": "/net.d"}
        hand = {"name": "hand", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "infinity"]}
        spec = {
            "terminationGracePeriodSeconds": 0,
            "containers": [{**hand, "securityContext": {"runAsUser": 0}, "volumeMounts": [mount]}],
            "volumes": [{"name": "conf", "hostPath": {"path": CONF_DIR}}],
        }
        where = {"name": "hand", "namespace": namespace}
        weir.apply({"apiVersion": "v1", "kind": "Pod", "metadata": where, "spec": spec})
        weir.wait_phase(namespace, "hand", "Running")

    @contextmanager
    def away(self) -> Iterator[None]:
        """Pods start without it, as on a node that is new."""
        self._place({"weir.dev/away": "true"})
        within(60, "no agent", lambda: self._weir.pods(SYSTEM, NODE) == [])
        self._python(_TAKE_OUT)
        time.sleep(2)  # the container runtime reads it anew
        try:
            yield
        finally:
            self.come_back()

    def come_back(self) -> float:
        """Until the entry is there again; when the agent was let start."""
        began = time.time()
        self._place(None)
        wait_for("the entry", lambda: self._python(_IS_IN).strip() == "True", 60)
        return began

    def _place(self, labels: dict[str, str] | None) -> None:
        patch = {"spec": {"template": {"spec": {"nodeSelector": labels}}}}
        self._weir.kubectl("patch", "daemonset/weir-node", "-n", SYSTEM, "-p", json.dumps(patch))

    def _python(self, program: str) -> str:
        return self._weir.kubectl("exec", "hand", "-n", self._namespace, "--", "python3", "-c", program)


@pytest.fixture(scope="module")
def plugin(weir: WeirCluster) -> Iterator[Plugin]:
    """The installation in CNI mode for a while, and its plugin."""
    upgrade(weir, *Mode.CNI.values)
    with weir.cluster.namespace(prefix="weir-hand") as namespace:
        yield Plugin(weir, namespace)
    upgrade(weir, "cni.enabled=false", "cni.repair.mode=InPlace", "webhook.repair.mode=None")


def upgrade(weir: WeirCluster, *values: str) -> None:
    sets = [part for value in values for part in ("--set", value)]
    weir.helm("upgrade", "weir", str(CHART), "-n", SYSTEM, "--reuse-values", "--wait", "--timeout", "120s", *sets)
    within(60, "replicas of before are gone", lambda: len(weir.pods(SYSTEM, SERVING)) == 2)


def start(weir: WeirCluster, namespace: str, name: str, host: str, *more: dict, **changes: object) -> None:
    made = caller(name, host, **changes)
    made["metadata"]["namespace"] = namespace
    made["spec"]["containers"] += more
    weir.apply(made)


def held(host: str) -> dict:
    more = {"image": IMAGE, "imagePullPolicy": "IfNotPresent"}
    return {"name": "held", "command": ["python3", "-c", _HELD, host], **more}


def missed(weir: WeirCluster, namespace: str) -> dict[str, str]:
    status = weir.get("interceptionpolicies", "-n", namespace)["items"]
    return {one["name"]: one["reason"] for each in status for one in (each.get("status") or {}).get("missed", ())}


def events(weir: WeirCluster, namespace: str) -> set[tuple[str, str]]:
    found = weir.get("events", "-n", namespace)["items"]
    return {
        (one["involvedObject"]["name"], one["reason"])
        for one in found
        if one.get("reportingComponent") == "weir.dev/operator"
    }


def ask_sidecar(weir: WeirCluster, namespace: str, pod: str, page: str) -> str:
    return weir.kubectl("exec", pod, "-n", namespace, "-c", "app", "--", "python3", "-c", _ASK, page)


def first_captured(weir: WeirCluster, namespace: str, pod: str) -> float:
    return min(call["at"] for call in weir.calls(namespace, pod) if call["ok"] and call["weir"])


def test_in_place(weir, plugin, origin, shop, note) -> None:
    for mode in ("Open", "Closed"):
        weir.apply(policy(mode.lower(), shop, mode.lower(), failureMode=mode))
    weir.apply(policy("once", shop, "once", failureMode="Closed"))
    time.sleep(1)
    with plugin.away():
        start(weir, shop, "open", origin.host, held(origin.host), pause=0.2)
        start(weir, shop, "closed", origin.host)
        weir.wait_phase(shop, "open", "Running")
        weir.wait_calls(shop, "open", lambda call: call["ok"] and not call["weir"])
        within(60, "it is told", lambda: missed(weir, shop) == {"open": "PluginMissed"})
        assert "not captured" in ask_sidecar(weir, shop, "open", "/readyz")
        assert "weir_captured 0" in ask_sidecar(weir, shop, "open", "/metrics").splitlines()
        # Closed: it refuses to run, and says so too.
        within(60, "it is told", lambda: missed(weir, shop) == {"open": "PluginMissed", "closed": "PluginMissed"})
        within(10, "events", lambda: {("open", "NotCaptured"), ("closed", "NotCaptured")} <= events(weir, shop))
        start(weir, shop, "once", origin.host, count=3)  # it is never started again: it has to wait
        back = plugin.come_back()
    weir.wait_calls(shop, "open", lambda call: call["ok"] and call["weir"])
    # Records say what was, and of the next connection.
    records = weir.told(shop, "open", "weir-sidecar")
    assert [one["reason"] for one in records if one.get("record") == "capture"] == ["plugin_missed", "repaired"]
    assert "intercept" in {one.get("decision") for one in records}
    weir.wait_phase(shop, "once", "Succeeded", seconds=90)
    weir.wait_phase(shop, "closed", "Running", seconds=120)
    weir.wait_calls(shop, "closed", lambda call: call["ok"])
    # Not one failed, and of the closed ones not one went direct.
    assert [call for call in weir.calls(shop, "open") if not call["ok"]] == []
    for pod in ("closed", "once"):
        assert {(call["ok"], call["weir"]) for call in weir.calls(shop, pod)} == {(True, True)}
    # What was connected before goes on as it was.
    before = len(weir.told(shop, "open", "held"))
    within(10, "the held connection goes on", lambda: len(weir.told(shop, "open", "held")) > before + 5)
    assert {(call["ok"], call["weir"]) for call in weir.told(shop, "open", "held")} == {(True, False)}
    # Nothing was restarted.
    status = weir.get("pod", "open", "-n", shop)["status"]
    assert {one["restartCount"] for one in (*status["initContainerStatuses"], *status["containerStatuses"])} == {0}
    assert "weir_captured 1" in ask_sidecar(weir, shop, "open", "/metrics").splitlines()
    within(60, "nobody is missed", lambda: missed(weir, shop) == {})
    within(60, "events", lambda: {("open", "CapturedAtLast"), ("closed", "CapturedAtLast")} <= events(weir, shop))
    times = {pod: first_captured(weir, shop, pod) - back for pod in ("open", "once", "closed")}
    note.append(
        "repair in place, from the start of the agent to the first captured call: "
        + ", ".join(f"{pod} {seconds:.1f} s" for pod, seconds in times.items())
        + f"; {len(weir.calls(shop, 'open'))} calls of the open pod, 0 failed"
    )


def test_rules_that_are_lost_come_back(weir, plugin, origin, shop, note) -> None:
    weir.apply(policy("all", shop, "loses"))
    time.sleep(1)
    loses = {"name": "loses", "image": SIDECAR_IMAGE, "imagePullPolicy": "IfNotPresent"}
    loses |= {"command": ["sleep", "infinity"], "securityContext": {"runAsUser": 0, "privileged": True}}
    start(weir, shop, "loses", origin.host, loses, pause=0.05)
    weir.wait_phase(shop, "loses", "Running")
    weir.wait_calls(shop, "loses", lambda call: call["ok"] and call["weir"])
    weir.kubectl("exec", "loses", "-n", shop, "-c", "loses", "--", "python3", "-c", _LOSE)
    lost = time.time()
    within(20, "they are lost", lambda: any(not call["weir"] for call in weir.calls(shop, "loses") if call["ok"]))
    weir.wait_calls(shop, "loses", lambda call: call["ok"] and call["weir"])
    calls = weir.calls(shop, "loses")
    # What was under way when the rules went is cut: the proxy's packets no longer find the application.
    assert [call for call in calls if not call["ok"] and call["at"] > lost] == []
    seconds = min(call["at"] for call in calls if call["at"] > lost + 0.5 and call["weir"]) - lost
    note.append(f"rules that were deleted were back after {seconds:.1f} s")


def test_label(weir, plugin, origin, shop) -> None:
    upgrade(weir, "cni.repair.mode=Label")
    weir.apply(policy("all", shop))
    time.sleep(1)
    with plugin.away():
        start(weir, shop, "slipped", origin.host)
        weir.wait_phase(shop, "slipped", "Running")
    start(weir, shop, "fine", origin.host)
    weir.wait_phase(shop, "fine", "Running")

    def labels(pod: str) -> str | None:
        return weir.get("pod", pod, "-n", shop)["metadata"]["labels"].get("weir.dev/missed")

    within(60, "the label", lambda: labels("slipped") == "PluginMissed")
    assert labels("fine") is None
    assert weir.calls(shop, "slipped")[-1]["weir"] is False


def test_delete(weir, plugin, origin, shop, note) -> None:
    upgrade(weir, "cni.repair.mode=Delete", "webhook.repair.mode=Delete")
    weir.apply(policy("all", shop))
    time.sleep(1)
    with plugin.away():
        made = deployment("web", caller("web", origin.host))
        weir.apply({**made, "metadata": {"name": "web", "namespace": shop}})
        start(weir, shop, "bare", origin.host)
        within(30, "a pod", lambda: phases(weir, shop) == ["Running"])
        weir.wait_phase(shop, "bare", "Running")
        ((first,), back) = pods_of(weir, shop), plugin.come_back()
    within(90, "another pod", lambda: pods_of(weir, shop) not in ([first], []) and phases(weir, shop) == ["Running"])
    (second,) = pods_of(weir, shop)
    weir.wait_calls(shop, second, lambda call: call["ok"] and call["weir"])
    seconds = first_captured(weir, shop, second) - back
    assert {(first, "EvictedToCapture"), ("bare", "NotCaptured")} <= events(weir, shop)
    assert missed(weir, shop) == {"bare": "PluginMissed"}
    note.append(f"evicted, and its successor captured {seconds:.1f} s after the start of the agent")


def test_delete_after_the_webhook_was_away_and_a_budget_holds(weir, plugin, origin, shop, note) -> None:
    upgrade(weir, "cni.repair.mode=InPlace", "webhook.repair.mode=Delete")
    weir.apply(policy("all", shop))
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    where = {"name": "web", "namespace": shop}
    weir.apply({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": where, "spec": budget})
    weir.kubectl("scale", "deployment/weir-serving", "-n", SYSTEM, "--replicas=0")
    try:
        within(60, "no replica", lambda: weir.pods(SYSTEM, SERVING) == [])
        weir.apply({**deployment("web", caller("web", origin.host)), "metadata": where})
        within(30, "a pod", lambda: phases(weir, shop) == ["Running"])
    finally:
        weir.kubectl("scale", "deployment/weir-serving", "-n", SYSTEM, "--replicas=2")
        weir.wait_rolled_out(SYSTEM, "weir-serving")
    (first,) = pods_of(weir, shop)
    within(60, "it is blocked", lambda: (first, "EvictionBlocked") in events(weir, shop))
    assert pods_of(weir, shop) == [first]
    weir.kubectl("delete", "poddisruptionbudget", "web", "-n", shop)
    free = time.time()
    within(120, "another pod", lambda: pods_of(weir, shop) not in ([first], []) and phases(weir, shop) == ["Running"])
    (second,) = pods_of(weir, shop)
    weir.wait_calls(shop, second, lambda call: call["ok"] and call["weir"])
    note.append(f"a budget held its pod; {first_captured(weir, shop, second) - free:.0f} s after it was gone, captured")


def pods_of(weir: WeirCluster, namespace: str) -> list[str]:
    """Those of the Deployment that are not being deleted."""
    found = weir.pods(namespace, "app=web")
    return [one["metadata"]["name"] for one in found if "deletionTimestamp" not in one["metadata"]]


def phases(weir: WeirCluster, namespace: str) -> list[str]:
    return [one["status"].get("phase", "") for one in weir.pods(namespace, "app=web")]
