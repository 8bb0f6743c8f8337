"""The proxy is killed, stopped, restarted and told a new policy, while an application goes on with its work.

One run with `failureMode: Open` and one with `Closed`, at 200 new connections and 50 DNS queries a second. A connection
that the dying proxy had already been given, or was given before the kernel had closed its listeners, is lost with it;
every one that is begun afterwards is new.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.accounts import Accounts, Book
from lab.lab import RAW, RAW6, WEB, Lab
from lab.load import Attempt, Lasting, Spec, Target
from lab.network import DNS_ADDRESS
from lab.policy import Policy
from lab.raw_servers import TLS_OFFSET
from lab.running import RunningWeir, wait_for

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]

PROXY_UID = 15801
KILLS = 5
SETTLE = 1.5
STALL = 5.0
DELAY = 0.1
"""Seconds more than which nobody takes but who waits for the proxy."""

ECHO, ECHO6 = Target("echo", RAW, 7), Target("echo", RAW6, 7)
TLS, TLS6 = (Target("tls", address, 7 + TLS_OFFSET, "raw.weir.test") for address in (RAW, RAW6))
HTTP = Target("http", WEB["tls"], 80, "load.tls.weir.test")


@dataclass(frozen=True)
class Fault:
    """What was done: when it began, when its effect was complete, and when the proxy served again."""

    kind: str
    began: float
    done: float
    over: float


@dataclass(frozen=True)
class Outcome:
    """What the load saw of the faults, and how it went before."""

    faults: list[Fault]
    attempts: list[Attempt]
    lasting: list[Lasting]
    books: tuple[Book, Book]

    def faults_of(self, *kinds: str) -> list[Fault]:
        return [fault for fault in self.faults if fault.kind in kinds]

    def lost_with_the_proxy(self, attempt: Attempt) -> bool:
        """Whether the attempt had begun when a kill had its effect, and had not ended when it was sent."""
        return any(attempt.started < kill.done and attempt.ended >= kill.began for kill in self.faults_of("kill"))

    def failed(self) -> list[Attempt]:
        """The attempts that failed, without those that were lost with the proxy."""
        return [a for a in self.attempts if a.error and not self.lost_with_the_proxy(a)]

    def begun(self, *spans: tuple[float, float]) -> list[Attempt]:
        return [a for a in self.attempts if any(start <= a.started < end for start, end in spans)]


def _spec(lab: Lab) -> Spec:
    return Spec(
        ca=str(lab.pki.ca_file),
        connections=200,
        queries=50,
        targets=[ECHO, TLS, HTTP, ECHO6, HTTP, ECHO, TLS6, ECHO6],
        resolver=DNS_ADDRESS,
        name="tls.weir.test",
        lasting=[ECHO, TLS, ECHO6, TLS6],
    )


def _policies(lab: Lab, mode: str) -> list[Policy]:
    """The policy to begin with, one with another rule, and one that captures otherwise, which loads other rules."""
    rule = {"name": "elsewhere", "match": {"hosts": ["elsewhere.test"]}, "action": "Deny"}
    specs = [
        {"failureMode": mode},
        {"failureMode": mode, "rules": [rule]},
        {"failureMode": mode, "capture": {"exclude": {"ports": [9999]}}},
    ]
    return [Policy(root=lab.pki.ca_file, interception=spec) for spec in specs]


def _kill(pod: RunningWeir) -> Fault:
    old = pod.proxy()
    sent, gone = pod.end_proxy(signal.SIGKILL)
    pod.wait_restarted(old)
    return Fault("kill", sent, gone, time.monotonic())


def _restart(pod: RunningWeir) -> Fault:
    old = pod.proxy()
    sent, gone = pod.end_proxy(signal.SIGTERM)
    pod.wait_restarted(old)
    return Fault("restart", sent, gone, time.monotonic())


def _stall(pod: RunningWeir) -> Fault:
    began = time.monotonic()
    os.kill(pod.proxy(), signal.SIGSTOP)
    time.sleep(STALL)
    os.kill(pod.proxy(), signal.SIGCONT)
    now = time.monotonic()
    return Fault("stall", began, now, now)


def _reload(policy: Policy) -> Callable[[RunningWeir], Fault]:
    def reload(pod: RunningWeir) -> Fault:
        before = pod.log.count("policies read again")
        pod.set_policy(policy)
        began = time.monotonic()
        pod.signal(signal.SIGHUP)
        wait_for("the policies are read again", lambda: pod.log.count("policies read again") > before)
        now = time.monotonic()
        return Fault("reload", began, now, now)

    return reload


def _argv(lab: Lab, name: str) -> tuple[list[str], Path]:
    spec, results = (lab.directory / f"{name}-{part}.json" for part in ("spec", "results"))
    _spec(lab).write(spec)
    return [sys.executable, "-m", "lab.load", str(spec), str(results)], results


def _read(results: Path) -> tuple[list[Attempt], list[Lasting]]:
    found = json.loads(results.read_text())
    return [Attempt(**a) for a in found["attempts"]], [Lasting(**flow) for flow in found["lasting"]]


def _run(lab: Lab, mode: str) -> Outcome:
    name = f"faults-{mode.lower()}"
    first, *others = _policies(lab, mode)
    argv, results = _argv(lab, name)
    with RunningWeir(lab, name, argv, first) as pod:
        assert pod.line() == "ready"
        accounts = Accounts(pod, PROXY_UID)
        pod.signal(signal.SIGUSR1)
        time.sleep(SETTLE)
        faults = []
        for fault in [_stall, *map(_reload, others), _restart, *[_kill] * KILLS]:
            faults.append(fault(pod))
            time.sleep(SETTLE)
        pod.signal(signal.SIGUSR2)
        assert pod.line() == "done"
        return Outcome(faults, *_read(results), accounts.close())


@pytest.fixture(scope="module")
def direct(lab: Lab) -> list[Attempt]:
    """The same load without Weir."""
    argv, results = _argv(lab, "faults-direct")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(lab.network.inside(argv), env=lab._environment(), **pipes) as load:
        assert load.stdout.readline() == b"ready\n"
        load.send_signal(signal.SIGUSR1)
        time.sleep(2 * SETTLE)
        load.send_signal(signal.SIGUSR2)
        load.communicate(timeout=30)
    return _read(results)[0]


@pytest.fixture(scope="module")
def opened(weir_lab: Lab) -> Outcome:
    return _run(weir_lab, "Open")


@pytest.fixture(scope="module")
def closed(weir_lab: Lab) -> Outcome:
    return _run(weir_lab, "Closed")


@pytest.fixture(params=["Open", "Closed"])
def outcome(request: pytest.FixtureRequest) -> Outcome:
    made: Outcome = request.getfixturevalue({"Open": "opened", "Closed": "closed"}[request.param])
    return made


def _times(attempts: list[Attempt]) -> str:
    """Durations in milliseconds."""
    times = sorted((a.ended - a.started) * 1000 for a in attempts)
    if not times:
        return "none"
    p50, p99 = (times[int(len(times) * share)] for share in (0.5, 0.99))
    return f"p50 {p50:.1f}, p99 {p99:.1f}, max {times[-1]:.1f} ms of {len(times)}"


def _kinds(attempts: list[Attempt]) -> dict[str, list[Attempt]]:
    kinds: dict[str, list[Attempt]] = {"connections": [], "queries": []}
    for attempt in attempts:
        kinds["queries" if attempt.kind == "dns" else "connections"].append(attempt)
    return kinds


def test_open_nothing_new_fails(opened: Outcome, direct: list[Attempt], note: list[str]) -> None:
    kills = opened.faults_of("kill")
    under_way = [a for a in opened.attempts if opened.lost_with_the_proxy(a)]
    lost = Counter(a.kind for a in under_way if a.error)
    assert not opened.failed()
    assert not [a for a in direct if a.error]
    begun = opened.begun((opened.faults[0].began, opened.faults[-1].over))
    note.append(f"Open, faults: {len(begun)} new connections and queries, 0 failed")
    note.append(
        f"Open, under way at {len(kills)} kills: {len(under_way)}, lost: {dict(lost) or 0}; {_times(under_way)}"
    )
    after_kills = _kinds(opened.begun(*((kill.done, kill.done + SETTLE) for kill in kills)))
    for what, without in _kinds(direct).items():
        figures = f"{_times(after_kills[what])}; direct: {_times(without)}"
        note.append(f"Open, {what} begun within {SETTLE} s after a kill: {figures}")


def test_open_a_stall_delays_only_what_began_before_the_switch_opened(opened: Outcome, note: list[str]) -> None:
    (stall,) = opened.faults_of("stall")
    for what, meanwhile in _kinds(opened.begun((stall.began, stall.done))).items():
        delayed = [a for a in meanwhile if a.ended - a.started > DELAY]
        others = [a for a in meanwhile if a.ended - a.started <= DELAY]
        assert len(others) > len(delayed), "the switch opens long before the stall ends"
        last = max((a.started - stall.began for a in delayed), default=0.0)
        told = f"{len(delayed)} delayed, the last begun after {last:.2f} s ({_times(delayed)}); others {_times(others)}"
        note.append(f"Open, {what} in a stall of {STALL:.0f} s: {told}")


def test_open_what_began_without_a_proxy_went_direct(opened: Outcome) -> None:
    """Guards the test below: the two accounts do tell when something leaves round the proxy."""
    sent, came = opened.books
    assert came.flows - sent.flows
    assert sent.counters["strangers"]
    assert sent.flows, "and there was a proxy in between"


def test_closed_not_one_packet_goes_round_the_proxy(closed: Outcome, note: list[str]) -> None:
    sent, came = closed.books
    assert sent.flows
    assert not came.flows - sent.flows
    assert came.counters["openings"] == sent.counters["openings"]
    assert sent.counters["strangers"] == came.counters["strangers"] == 0
    note.append(f"Closed, faults: {len(came.flows)} flows left the pod, all the proxy's")


def test_closed_only_what_begins_without_a_proxy_fails(closed: Outcome, note: list[str]) -> None:
    failed = closed.failed()
    assert {a.error for a in failed} <= {"ECONNREFUSED", "ECONNRESET"}, "refused, not left hanging"
    away = closed.faults_of("kill", "restart")
    assert not [a for a in failed if not any(fault.began <= a.started < fault.over for fault in away)]
    seconds = ", ".join(f"{fault.kind} {fault.over - fault.began:.2f}" for fault in away)
    note.append(
        f"Closed, faults: {len(failed)} refused while there was no proxy (seconds: {seconds}), 0 failed otherwise"
    )


def test_what_was_proxied_goes_on(outcome: Outcome) -> None:
    """Through the stall and both reloads; a restart ends connections that do not end by themselves."""
    (restart,) = outcome.faults_of("restart")
    first = [flow for flow in outcome.lasting if flow.opened < outcome.faults[0].began]
    assert len(first) == len({(flow.kind, flow.opened) for flow in first}) == 4
    assert all(flow.heard >= restart.began for flow in first)


def test_the_load_was_what_it_says(outcome: Outcome) -> None:
    seconds = outcome.faults[-1].over - outcome.faults[0].began
    begun = outcome.begun((outcome.faults[0].began, outcome.faults[-1].over))
    assert len(begun) > 0.95 * seconds * (200 + 50)
