"""CNI mode on a node: no container of a pod has a capability, and pods wait for the agent, and not the other way round.

WEIR_TEST_CNI_CONF_DIR and WEIR_TEST_CNI_BIN_DIR say where the nodes have their CNI configuration and plugins, if elsewhere.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab import workloads
from lab.origin_pod import Origin
from lab.place import Mode
from lab.weir_cluster import CHART, SYSTEM, WeirCluster, within
from lab.workloads import caller, policy

pytestmark = [pytest.mark.cluster, pytest.mark.pods]
NODE = ("-n", SYSTEM, "-l", "app.kubernetes.io/component=node")
STRICT = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.fixture(scope="module")
def cni(weir: WeirCluster) -> Iterator[WeirCluster]:
    """The installation, in CNI mode for a while."""
    upgrade(weir, *Mode.CNI.values)
    weir.kubectl("rollout", "status", "daemonset/weir-node", "-n", SYSTEM, "--timeout=120s")
    yield weir
    upgrade(weir, "cni.enabled=false")


def upgrade(weir: WeirCluster, *values: str) -> None:
    sets = [part for value in values for part in ("--set", value)]
    weir.helm("upgrade", "weir", str(CHART), "-n", SYSTEM, "--reuse-values", "--wait", "--timeout", "120s", *sets)
    # A replica that ends still answers the webhook, as it was told to before.
    serving = "app.kubernetes.io/component=serving"
    within(60, "replicas of before are gone", lambda: len(weir.pods(SYSTEM, serving)) == 2)


@pytest.fixture
def restricted(cni: WeirCluster, origin: Origin) -> Iterator[str]:
    """A namespace that enforces the strictest level of Pod Security."""
    with cni.cluster.namespace(prefix="weir-cni", labels={"pod-security.kubernetes.io/enforce": "restricted"}) as name:
        origin.introduce(name)
        yield name


def manifest(namespace: str, name: str, host: str, **more: object) -> dict[str, Any]:
    security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = caller(name, host, container={"securityContext": STRICT}, securityContext=security, **more)
    return {**pod, "metadata": {**pod["metadata"], "namespace": namespace}}


def start(weir: WeirCluster, namespace: str, name: str, host: str, **more: object) -> None:
    weir.apply(manifest(namespace, name, host, **more))


def test_a_restricted_pod_is_captured_with_no_capability_in_any_container(cni, origin, restricted) -> None:
    cni.apply(policy("all", restricted, failureMode="Closed"))
    start(cni, restricted, "who", origin.host)
    cni.wait_phase(restricted, "who", "Running")
    cni.wait_calls(restricted, "who", lambda call: call["ok"] and call["weir"])
    spec = cni.get("pod", "who", "-n", restricted)["spec"]
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    status = cni.kubectl("exec", "who", "-n", restricted, "-c", "weir-sidecar", "--", "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == {"15801"}
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    records = [json.loads(line) for line in cni.logs(restricted, "who", "weir-sidecar").splitlines() if line[0] == "{"]
    assert {one["decision"] for one in records if one["protocol"] == "tls"} == {"intercept"}
    assert [call for call in cni.calls(restricted, "who") if not call["ok"]] == []


def test_another_container_with_the_proxys_user_is_given_no_sockets(cni) -> None:
    with cni.cluster.namespace(prefix="weir-cni") as namespace:
        cni.apply(policy("all", namespace, failureMode="Closed"))
        root = {"runAsUser": 0, "runAsNonRoot": False}
        made = workloads.pod("thief", workloads.container("thief", image=workloads.SIDECAR_IMAGE, securityContext=root))
        cni.apply({**made, "metadata": {**made["metadata"], "namespace": namespace}})
        cni.wait_phase(namespace, "thief", "Succeeded")
        given = dict(line.split() for line in cni.logs(namespace, "thief", "app").splitlines())
        assert set(given.values()) == {"EKEYREJECTED"}, given
        assert len(given) == 5
    assert "has not the key" in cni.kubectl("logs", *NODE, "--tail=-1")


@pytest.mark.parametrize("failure_mode", ["Open", "Closed"])
def test_a_pod_waits_for_an_agent_that_is_away_and_running_ones_notice_nothing(
    cni, origin, restricted, failure_mode
) -> None:
    cni.apply(policy("all", restricted, failureMode=failure_mode))
    start(cni, restricted, "before", origin.host, pause=0.02)
    cni.wait_phase(restricted, "before", "Running")
    cni.wait_calls(restricted, "before", lambda call: call["ok"])
    cni.kubectl("delete", "pod", *NODE, "--wait=false")
    start(cni, restricted, "meanwhile", origin.host, count=3)
    cni.wait_phase(restricted, "meanwhile", "Succeeded", seconds=120)
    assert [(call["ok"], call.get("weir")) for call in cni.calls(restricted, "meanwhile")] == [(True, True)] * 3
    calls = cni.calls(restricted, "before")
    assert [call for call in calls if not call["ok"] or not call["weir"]] == []
    # The new agent serves the old pod: its sidecar starts again, and gets its sockets from it.
    cni.kubectl("rollout", "status", "daemonset/weir-node", "-n", SYSTEM, "--timeout=120s")
    cni.kubectl("exec", "before", "-n", restricted, "-c", "weir-sidecar", "--", "kill", "1", check=False)
    cni.wait_calls(restricted, "before", lambda call: call["ok"] and call["weir"])


DONE = "jsonpath={.status.phase}=Succeeded"
_BUCKET = re.compile(r'^weir_cni_(?:request|phase)_seconds_bucket{\w+="(\w+)",le="([^"]+)"} (\d+)$', re.MULTILINE)


@pytest.mark.timeout(900)
def test_many_pods_at_once(cni, origin, restricted, note) -> None:
    """WEIR_TEST_PODS of them, and what the agent's metrics tell."""
    cni.apply(policy("all", restricted))
    names = [f"many-{number}" for number in range(int(os.environ.get("WEIR_TEST_PODS", "10")))]
    pods = [manifest(restricted, name, origin.host, count=1) for name in names]
    before = _buckets(cni)
    cni.apply(*pods)
    began = time.monotonic()
    waits = ("wait", "pod", "--all", "-n", restricted, f"--for={DONE}", "--timeout=50s")
    within(800, "all are done", lambda: "timed out" not in cni.kubectl(*waits, check=False))
    took = time.monotonic() - began
    assert [cni.calls(restricted, one)[0]["ok"] for one in names] == [True] * len(names)
    after = _buckets(cni)
    told = "; ".join(f"{what} {_quantiles(before[what], after[what])}" for what in ("ADD", "queue", "pod", "rules"))
    assert after["rules"]["+Inf"] - before["rules"]["+Inf"] >= len(names)
    note.append(f"CNI ADD: {len(names)} pods at once in {took:.0f} s, from the start of the plugin on: {told}")


def _buckets(weir: WeirCluster) -> dict[str, dict[str, int]]:
    """The agent's histograms: from the plugin's start, and the phases of what captured pods waited for."""
    (agent,) = weir.pods(SYSTEM, "app.kubernetes.io/component=node")
    text = weir.kubectl(
        "get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{agent['metadata']['name']}:15805/proxy/metrics"
    )
    found: dict[str, dict[str, int]] = {}
    for what, bound, count in _BUCKET.findall(text):
        found.setdefault(what, {})[bound] = int(count)
    return found


def _quantiles(before: dict[str, int], after: dict[str, int]) -> str:
    """As far as buckets tell them."""
    counts = {bound: after[bound] - before[bound] for bound in after}
    share = counts["0.15"] / counts["+Inf"]
    within_bounds = (next(bound for bound in counts if counts[bound] >= q * counts["+Inf"]) for q in (0.5, 0.99, 1))
    p50, p99, most = within_bounds
    return f"p50 <= {p50} s, p99 <= {p99} s, max <= {most} s, {share:.0%} within 0.15 s"
