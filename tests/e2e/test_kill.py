"""The sidecar is killed (SIGKILL) under load: Open goes on, Closed lets nothing by. In each mode, with each way of capture,
to addresses of each family; one pod calls in both.
"""

from typing import Any, NamedTuple

import pytest

from lab.node_hands import Hands, Watched, wait_restarted
from lab.origin_pod import FAMILIES
from lab.place import Place
from lab.weir_cluster import within
from lab.workloads import caller

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(600)]

CASES = [(capture, failure) for capture in ("TPROXY", "Redirect") for failure in ("Open", "Closed")]
THREADS = 3
"""To each host: some may wait for the answer to a query that the sidecar had when it died, and see nothing of the gap."""
IMPATIENT = {"options": [{"name": "ndots", "value": "1"}, {"name": "timeout", "value": "1"}]}
"""Resolvers are asked again after a second, and not for names in search domains."""
AFTER = 20
"""Calls that are awaited after the sidecar is back."""


class Killed(NamedTuple):
    """A pod whose sidecar was killed."""

    capture: str
    failure_mode: str
    began: float
    """Just before it: who fails after that may have been in its way."""
    at: float
    calls: list[dict[str, Any]]
    watched: Watched


@pytest.fixture(scope="module")
def killed(here: Place, hands: Hands, web_hosts) -> dict[tuple[str, str], Killed]:
    """Of each case a pod whose sidecar was killed once."""
    return {case: kill(here, hands, web_hosts, *case) for case in CASES}


def kill(here: Place, hands: Hands, hosts: list[str], capture: str, failure_mode: str) -> Killed:
    name = f"kill-{capture.lower()}-{failure_mode.lower()}"
    here.policy(name, name, capture={"mode": capture}, failureMode=failure_mode)
    here.start(here.fit(caller(name, *hosts * THREADS, pause=0.2, dnsConfig=IMPATIENT)))
    here.wait_calling(name, *hosts)
    pod = here.pod(name)
    hands.watch(pod)
    began = max(one["at"] + one["ms"] / 1000 for one in here.calls(name))
    at = hands.kill(pod, "weir-sidecar")
    wait_restarted(here.weir, pod, "weir-sidecar")
    back = max(call["at"] for call in here.calls(name))
    here.wait_calling(name, *hosts, since=back)
    within(90, "more calls", lambda: len([one for one in here.calls(name) if one["at"] > back]) >= AFTER * len(hosts))
    calls, watched = here.calls(name), hands.watched(pod)
    here.weir.kubectl("delete", "pod", name, "-n", here.namespace, "--wait=false")
    return Killed(capture, failure_mode, began, at, calls, watched)


class Cell(NamedTuple):
    """One of the ways of capture, and one family."""

    name: str
    capture: str
    pods: dict[str, Killed]
    host: str

    def calls(self, failure_mode: str) -> list[dict[str, Any]]:
        """All to the host."""
        return [one for one in self.pods[failure_mode].calls if one["host"] == self.host]

    def after(self, failure_mode: str) -> list[dict[str, Any]]:
        """Those that began after the kill."""
        return [one for one in self.calls(failure_mode) if one["at"] > self.pods[failure_mode].at]


@pytest.fixture(params=["TPROXY", "Redirect"])
def cell(request: pytest.FixtureRequest, mode, killed, family, names) -> Cell:
    capture = request.param
    pods = {failure_mode: killed[capture, failure_mode] for failure_mode in ("Open", "Closed")}
    return Cell(f"{mode}, {capture}, IPv{family}", capture, pods, names[family]["web"]["host"])


def test_requests_before_it_were_captured(cell):
    for failure_mode in cell.pods:
        began = cell.pods[failure_mode].began
        before = [one for one in cell.calls(failure_mode) if one["at"] + one["ms"] / 1000 <= began]
        assert before
        assert [one for one in before if not (one["ok"] and one["weir"])] == []


def test_open_loses_no_new_connection(cell, note):
    after = cell.after("Open")
    failed = [one for one in after if not one["ok"]]
    direct = [one for one in after if one["ok"] and not one["weir"]]
    # With Redirect the first packet of each family was translated before anybody could know: it is refused, and opens
    # the switch. Queries go to a resolver of one family, whatever they are about.
    pod = cell.pods["Open"]
    lost = [one for one in pod.calls if one["at"] > pod.at and not one["ok"]]
    assert len(lost) <= (0 if cell.capture == "TPROXY" else len(FAMILIES)), lost
    assert direct
    assert all(one["ok"] and one["weir"] for one in after[-5:])
    note.append(
        f"kill -9, {cell.name}, Open: {len(after)} calls after it, {len(direct)} of them direct, {len(failed)} failed"
    )


def test_closed_lets_nothing_by(cell, note):
    after = cell.after("Closed")
    failed = [one for one in after if not one["ok"]]
    assert failed
    assert [one for one in cell.calls("Closed") if one["ok"] and not one["weir"]] == []
    assert all(one["ok"] and one["weir"] for one in after[-5:])
    pod = cell.pods["Closed"]
    assert pod.watched.leaks == []
    assert pod.watched.packets > 0
    note.append(
        f"kill -9, {cell.name}, Closed: {len(after)} calls after it, {len(failed)} blocked, 0 direct;"
        f" {pod.watched.packets} packets of the proxy's left the pod in both families, {len(pod.watched.leaks)} of anybody else's"
    )


def test_the_watch_sees_what_open_lets_by(cell):
    assert cell.pods["Open"].watched.leaks
