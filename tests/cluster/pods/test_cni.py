"""CNI mode on a node: no container of a pod has a capability, and pods wait for the agent, and not the other way round.

WEIR_TEST_CNI_CONF_DIR and WEIR_TEST_CNI_BIN_DIR say where the nodes have their CNI configuration and plugins, if elsewhere.
"""

import json
import os
from collections.abc import Iterator

import pytest

from lab.origin_pod import Origin
from lab.weir_cluster import CHART, SYSTEM, WeirCluster, within
from lab.workloads import caller, policy

pytestmark = [pytest.mark.cluster, pytest.mark.pods]
PLACES = {"cni.confDir": "WEIR_TEST_CNI_CONF_DIR", "cni.binDir": "WEIR_TEST_CNI_BIN_DIR"}
NODE = ("-n", SYSTEM, "-l", "app.kubernetes.io/component=node")
STRICT = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.fixture(scope="module")
def cni(weir: WeirCluster) -> Iterator[WeirCluster]:
    """The installation, in CNI mode for a while."""
    given = [f"{value}={os.environ[name]}" for value, name in PLACES.items() if name in os.environ]
    upgrade(weir, "cni.enabled=true", *given)
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


def start(weir: WeirCluster, namespace: str, name: str, host: str, **more: object) -> None:
    security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = caller(name, host, container={"securityContext": STRICT}, securityContext=security, **more)
    weir.apply({**pod, "metadata": {**pod["metadata"], "namespace": namespace}})


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


@pytest.mark.timeout(400)
def test_many_pods_at_once(cni, origin, restricted, note) -> None:
    cni.apply(policy("all", restricted))
    names = [f"many-{number}" for number in range(int(os.environ.get("WEIR_TEST_PODS", "10")))]
    for name in names:
        start(cni, restricted, name, origin.host, count=1)
    took = within(300, "all are done", lambda: not [one for one in names if not cni.calls(restricted, one)])
    assert [cni.calls(restricted, one)[0]["ok"] for one in names] == [True] * len(names)
    logged = cni.kubectl("logs", *NODE, "--tail=-1").splitlines()
    times = sorted(float(line.split()[-2]) for line in logged if f"pod {restricted}/many-" in line)
    assert len(times) >= len(names)
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    note.append(
        f"CNI ADD: {len(names)} pods at once in {took:.0f} s; p50 {p50:.0f} ms, p99 {p99:.0f} ms of the agent's own"
    )
