"""Under load the sidecar's container is started anew, the control plane and the node agent are replaced, and the sidecar's
image is: Open loses no new connection, Closed lets no packet by.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from lab.node_hands import Hands, wait_restarted
from lab.place import Mode, Place
from lab.weir_cluster import CHART, SYSTEM, within
from lab.workloads import caller, deployment

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(600)]

FAILURE_MODES = ("Open", "Closed")
PAUSE = 0.1
NEXT_TAG = "WEIR_TEST_NEXT_TAG"


@pytest.fixture(scope="module")
def steady(here: Place, hands: Hands, web_hosts) -> dict[str, str]:
    """A pod of either failure mode that calls all the time, and what else leaves it is watched."""
    pods = {failure_mode: f"steady-{failure_mode.lower()}" for failure_mode in FAILURE_MODES}
    for failure_mode, name in pods.items():
        here.policy(name, name, failureMode=failure_mode)
        here.start(here.fit(caller(name, *web_hosts, pause=PAUSE)))
    for name in pods.values():
        here.wait_calling(name, *web_hosts)
        hands.watch(here.pod(name))
    return pods


def upgrade(here: Place, *values: str) -> None:
    sets = [part for value in values for part in ("--set", value)]
    here.weir.helm("upgrade", "weir", str(CHART), "-n", SYSTEM, "--reuse-values", "--wait", "--timeout", "150s", *sets)


def more_calls(here: Place, name: str, since: float, number: int = 40) -> list[dict[str, Any]]:
    """The calls after a moment, when there are enough of them."""
    within(60, f"more calls of {name}", lambda: len([one for one in here.calls(name) if one["at"] > since]) >= number)
    return [one for one in here.calls(name) if one["at"] > since]


def uncaptured(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in calls if not (one["ok"] and one["weir"])]


def test_the_sidecars_container_is_started_anew(here: Place, hands: Hands, steady, web_hosts, note):
    results = {}
    for failure_mode, name in steady.items():
        pod = here.pod(name)
        at = hands.kill(pod, "weir-sidecar", signal.SIGTERM)
        wait_restarted(here.weir, pod, "weir-sidecar")
        here.wait_calling(name, *web_hosts, since=time.time())
        results[failure_mode] = more_calls(here, name, at)
        assert uncaptured(results[failure_mode][-5:]) == []
    failed = [one for one in results["Open"] if not one["ok"]]
    assert failed == []
    assert [one for one in results["Closed"] if one["ok"] and not one["weir"]] == []
    leaks = hands.watched(here.pod(steady["Closed"])).leaks
    assert leaks == []
    direct = [one for one in results["Open"] if not one["weir"]]
    blocked = [one for one in results["Closed"] if not one["ok"]]
    note.append(
        f"restart, {here.mode}: Open {len(results['Open'])} new connections, {len(direct)} of them direct, {len(failed)} failed;"
        f" Closed {len(results['Closed'])}, {len(blocked)} blocked, {len(leaks)} packets leaked"
    )


def test_the_control_plane_and_the_node_agent_are_replaced(here: Place, hands: Hands, steady, mode, note):
    began, token = time.time(), f"{time.time():.0f}"
    components = ("operator", "serving", *(("cni",) if mode is Mode.CNI else ()))
    before = system_pods(here)
    upgrade(here, *(f"{component}.podAnnotations.test=at-{token}" for component in components))
    if mode is Mode.CNI:
        here.weir.wait_rolled_out(SYSTEM, "weir-node", kind="daemonset")
    within(90, "all pods of before are gone", lambda: not before & system_pods(here))
    calls = {failure_mode: more_calls(here, name, began) for failure_mode, name in steady.items()}
    for failure_mode in FAILURE_MODES:
        assert uncaptured(calls[failure_mode]) == []
    assert hands.watched(here.pod(steady["Closed"])).leaks == []
    note.append(
        f"helm upgrade of {', '.join(components)}, {mode}: "
        + "; ".join(f"{failure_mode} {len(made)} calls, 0 failed or direct" for failure_mode, made in calls.items())
    )


def system_pods(here: Place) -> set[str]:
    return {one["metadata"]["uid"] for one in here.weir.get("pods", "-n", SYSTEM)["items"]}


class Rolling(NamedTuple):
    """A Deployment whose pods call these hosts, and its first pods."""

    name: str
    hosts: list[str]
    pods: list[Any]


@pytest.fixture(params=FAILURE_MODES)
def rolling(request: pytest.FixtureRequest, here: Place, hands: Hands, web_hosts) -> Rolling:
    name = f"rolling-{request.param.lower()}"
    here.policy(name, name, failureMode=request.param)
    made = caller(name, *web_hosts, pause=PAUSE, linger=2, terminationGracePeriodSeconds=30)
    here.start(deployment(name, here.fit(made), replicas=2))
    here.weir.wait_rolled_out(here.namespace, name)
    pods = here.pods(name)
    for pod in pods:
        here.wait_calling(pod["metadata"]["name"], *web_hosts)
        hands.watch(pod)
    return Rolling(name, web_hosts, pods)


@pytest.fixture
def next_tag(here: Place, rolling: Rolling) -> Iterator[str]:
    """From now on the installation gives new pods the same image by another name."""
    tag = os.environ.get(NEXT_TAG)
    if not tag:
        pytest.skip(f"no second tag of the sidecar's image on the nodes: name one with {NEXT_TAG}")
    upgrade(here, f"image.sidecar.tag={tag}")
    yield tag
    upgrade(here, "image.sidecar.tag=")


def test_the_sidecars_image_is_replaced(here: Place, hands: Hands, rolling: Rolling, next_tag, note):
    told, leaks = roll(here, hands, rolling)
    calls = [one for lines in told for one in lines if "at" in one]
    for pod in here.pods(rolling.name):
        images = {one["name"]: one["image"] for one in pod["spec"]["initContainers"]}
        assert images["weir-sidecar"].endswith(f":{next_tag}")
        here.wait_calling(pod["metadata"]["name"], *rolling.hosts)
        calls += here.calls(pod["metadata"]["name"])
    assert uncaptured(calls) == []
    assert leaks == []
    note.append(f"sidecar image replaced, {here.mode}, {rolling.name}: {len(calls)} calls, 0 failed or direct")


def roll(here: Place, hands: Hands, rolling: Rolling) -> tuple[list[list[dict[str, Any]]], list[str]]:
    """Replace all pods; what those of before told until their end, and what leaked from them."""
    with ExitStack() as stack:
        told = [stack.enter_context(here.weir.follow(here.namespace, pod["metadata"]["name"])) for pod in rolling.pods]
        here.weir.kubectl("rollout", "restart", f"deployment/{rolling.name}", "-n", here.namespace)
        here.weir.wait_rolled_out(here.namespace, rolling.name)
    within(60, "the pods of before are gone", lambda: len(here.pods(rolling.name)) == len(rolling.pods))
    return told, [leak for pod in rolling.pods for leak in hands.watched(pod).leaks]
