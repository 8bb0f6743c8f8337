"""The trust cache of a real sidecar in a real `weir run`, with as many clients as it takes.

Bursts, a person's word, restarts, and 10,000 connections that look like distrust and are none. The state table and the
table of clients are tested in tests/unit/core and tests/acceptance/test_clients.py.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lab.lab import WEB, WEIR, Lab
from lab.policy import Policy
from lab.running import RunningWeir, wait_for

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

BURST = 50
LOST_AT_MOST = 2
CONNECTIONS = 10_000
_CHUNK = 1000
CLIENTS = [sys.executable, "-m", "lab.trust_load"]


class Pod:
    """A running pod with clients that do what they are told."""

    def __init__(self, weir: RunningWeir) -> None:
        self.weir = weir
        assert weir.line() == "ready"

    def clients(self, kind: str, host: str, count: int = 1, *, trust: bool = True) -> dict[str, int]:
        """Let `count` clients connect to `host`; returns how many came to which end."""
        ca = None if trust else str(self.weir.lab.pki.ca_file)
        address = WEB[host.split(".")[1]]
        job = {"kind": kind, "host": host, "address": address, "port": 443, "count": count, "ca": ca}
        assert self.weir.process.stdin
        self.weir.process.stdin.write(json.dumps(job).encode() + b"\n")
        self.weir.process.stdin.flush()
        return json.loads(self.weir.line())

    def say(self, word: str, host: str) -> None:
        """Let a person say something about a host."""
        subprocess.run([WEIR, "exceptions", word, "--state", self.weir.state, host], check=True, capture_output=True)

    def states(self) -> dict[str, str]:
        """What the trust cache holds about each host."""
        command = [WEIR, "exceptions", "list", "--state", self.weir.state, "-o", "json"]
        listed = subprocess.run(command, check=True, capture_output=True).stdout
        return {entry["host"]: entry["state"] for entry in json.loads(listed)}

    def records(self, **fields: Any) -> list[dict[str, Any]]:
        return [r for r in self.weir.records if all(r[key] == value for key, value in fields.items())]


@pytest.fixture(scope="module")
def pod(weir_lab: Lab) -> Iterator[Pod]:
    with RunningWeir(weir_lab, "trust", CLIENTS, Policy(root=weir_lab.pki.ca_file)) as weir:
        yield Pod(weir)


@pytest.mark.parametrize("version", ["tls12", "tls13"])
def test_a_burst_of_distrusting_clients_loses_at_most_two(pod: Pod, version: str, note: list[str]) -> None:
    host = f"burst.{version}.weir.test"
    ends = pod.clients("talk", host, BURST, trust=False)
    lost = BURST - ends.get("origin", 0)
    note.append(f"a burst of {BURST} distrusting clients with {version} lost {lost}")
    assert lost <= LOST_AT_MOST, ends
    wait_for("a record of each", lambda: len(pod.records(host=host)) >= BURST)
    reasons = [record["reason"] for record in pod.records(host=host)]
    assert reasons.count("client_distrusts_ca") + reasons.count("app_distrusts_ca") == BURST - lost


def test_a_persons_word_acts_at_once(pod: Pod) -> None:
    host = "word.tls13.weir.test"
    assert pod.clients("talk", host) == {"weir": 1}
    pod.say("pin", host)
    assert pod.clients("talk", host, trust=False) == {"origin": 1}
    pod.say("approve", host)
    assert pod.clients("talk", host) == {"weir": 1}
    wait_for("a record of each", lambda: len(pod.records(host=host)) >= 3)
    assert [record["reason"] for record in pod.records(host=host)] == ["default", "pinned", "approved"]


def test_a_client_that_does_not_trust_is_intercepted_again_when_a_person_says_so(pod: Pod) -> None:
    host = "again.tls13.weir.test"
    pod.clients("talk", host, BURST, trust=False)
    assert pod.clients("talk", host, trust=False) == {"origin": 1}
    pod.say("approve", host)
    assert "origin" not in pod.clients("talk", host, trust=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["restarted", "killed"])
def test_a_restarted_sidecar_remembers(pod: Pod, number: signal.Signals) -> None:
    host, pinned = f"kept-{number}.tls13.weir.test", f"pinned-{number}.tls13.weir.test"
    pod.clients("talk", host, BURST, trust=False)
    pod.say("pin", pinned)
    # What was learned is in the file soon after; a kill may take what was learned just then.
    saved = pod.weir.state / "sidecar" / "trust.json"
    wait_for("the cache is saved", lambda: saved.exists() and pinned in saved.read_text())
    old = pod.weir.proxy()
    pod.weir.end_proxy(number)
    pod.weir.wait_restarted(old)
    assert pod.clients("talk", host, 5, trust=False) == {"origin": 5}
    assert pod.clients("talk", pinned, 5, trust=False) == {"origin": 5}
    assert pod.states()[pinned] == "pinned"
    wait_for("a record of each", lambda: len(pod.records(host=host)) >= BURST + 5)
    assert {record["decision"] for record in pod.records(host=host)[BURST:]} == {"passthrough"}


def test_the_next_run_with_the_same_state_remembers(pod: Pod, weir_lab: Lab) -> None:
    host = "kept.tls12.weir.test"
    pinned = "pinned.tls12.weir.test"
    policy = Policy(root=weir_lab.pki.ca_file)
    with RunningWeir(weir_lab, "trust-first", CLIENTS, policy) as weir:
        first = Pod(weir)
        first.clients("talk", host, 5, trust=False)
        first.say("pin", pinned)
    options = ("--state", str(weir.state))
    with RunningWeir(weir_lab, "trust-next", CLIENTS, policy, *options) as weir:
        following = Pod(weir)
        assert following.clients("talk", host, 5, trust=False) == {"origin": 5}
        assert following.clients("talk", pinned, 5, trust=False) == {"origin": 5}


@pytest.mark.slow
def test_nothing_harmless_is_taken_for_distrust(pod: Pod, note: list[str]) -> None:
    """Healthy, cancelled, pre-connected and health-check connections of clients that trust."""
    host, address = "harmless.tls13.weir.test", WEB["tls13"]
    before = len(pod.records(address=address, port=443))
    assert pod.clients("talk", host) == {"weir": 1}
    ends: dict[str, int] = {}
    for _ in range(CONNECTIONS // _CHUNK):
        for end, count in pod.clients("harmless", host, _CHUNK).items():
            ends[end] = ends.get(end, 0) + count
    note.append(f"{CONNECTIONS} harmless connections: {dict(sorted(ends.items()))}")
    assert set(ends) == {"weir", "touched", "cancelled", "checked", "unused"}
    assert pod.states()[host] == "trusted"
    assert {record["decision"] for record in pod.records(host=host)} == {"intercept"}
    assert pod.clients("talk", host, 100) == {"weir": 100}
    wanted = before + CONNECTIONS + 101
    wait_for("a record of each", lambda: len(pod.records(address=address, port=443)) >= wanted)
    assert len(pod.records(address=address, port=443)) == wanted
