"""What the kubelet is told of the agent: from asking the plugin's socket, not from remembering."""

import struct
from pathlib import Path

import pytest

from lab.shim import FakeAgent
from weir_sidecar.node.counters import Counters
from weir_sidecar.node.probe import Probe


def probe(path: Path, *, turned: float = 99.0) -> Probe:
    counters = Counters(1)
    counters.turn(turned, 0)
    return Probe(counters, str(path), lambda: 100.0)


def test_an_agent_that_answers_is_ready(tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    with FakeAgent(path, struct.pack("!II", 0, 0)) as agent:
        assert probe(path).readyz() == ""
    (asked,) = agent.asked
    assert b"CNI_COMMAND=STATUS\0" in asked


@pytest.mark.parametrize(("answer", "words"), [(struct.pack("!II", 1, 0), "answered 1"), (b"", "ends after 0 of 8")])
def test_an_agent_that_answers_otherwise_is_not(tmp_path: Path, answer: bytes, words: str) -> None:
    path = tmp_path / "cni.sock"
    with FakeAgent(path, answer):
        assert words in probe(path).readyz()


def test_an_agent_that_nobody_can_ask_is_neither_ready_nor_alive(tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    for wrong in (probe(path).readyz(), probe(path).healthz()):
        assert wrong.startswith(str(path))


def test_an_agent_whose_loop_stands_still_is_not_alive(tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    with FakeAgent(path, b""):
        assert probe(path).healthz() == ""
        assert "has not turned for 50 s" in probe(path, turned=50.0).healthz()
