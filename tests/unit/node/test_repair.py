"""Which pods are repaired in place, by what the container runtime noted. The kernel's part is in tests/netns/test_repair.py."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.contract.config import Setup, SidecarConfig
from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.node.cni import CNIError, Code, Request, Sandbox
from weir_sidecar.node.records import Record, Records
from weir_sidecar.node.repair import RETRY_SECONDS, Edge, find_broken, find_slipped
from weir_sidecar.node.repair_cache import slipped
from weir_sidecar.node.repair_edge import SWEEP_SECONDS, PassedFiles, Schedule

CONFIG = SidecarConfig(setup=Setup.CNI)
NETNS = "/var/run/netns/cni-1"
ARGUMENTS = [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "web-1"], ["K8S_POD_UID", "u-1"]]


def note(container: str = "c1", plugins: tuple[str, ...] = ("bridge", "portmap"), **changes: Any) -> bytes:
    """A file as containerd leaves it."""
    conflist = {"name": "main", "plugins": [{"type": one, "more": 1} for one in plugins]}
    whole = {
        "kind": "cniCacheV1",
        "containerId": container,
        "config": base64.b64encode(json.dumps(conflist).encode()).decode(),
        "ifName": "eth0",
        "networkName": "main",
        "cniArgs": ARGUMENTS,
        "result": {"cniVersion": "1.0.0", "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": NETNS}]},
        **changes,
    }
    return json.dumps(whole).encode()


class TestNotes:
    def test_a_sandbox_that_was_made_without_the_plugin_is_what_the_plugin_would_have_been_asked_for(self) -> None:
        request = slipped(note())
        assert request is not None
        assert (request.container_id, request.netns) == ("c1", NETNS)
        assert request.sandbox == Sandbox("shop", "web-1", "u-1")
        assert json.loads(bytes(request.configuration.previous))["cniVersion"] == "1.0.0"

    def test_newer_runtimes_note_the_namespace_itself(self) -> None:
        request = slipped(note(netns="/run/netns/x", result={"cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}]}))
        assert request is not None
        assert request.netns == "/run/netns/x"

    @pytest.mark.parametrize(
        "text",
        [
            note(plugins=("bridge", "weir-cni")),
            note(plugins=("loopback",)),
            note(cniArgs=None),
            note(cniArgs=[["IgnoreUnknown", "1"]]),
            note(result={"interfaces": []}),
            note(result={}),
            note(config="%%%"),
            note(config=base64.b64encode(b"[]").decode()),
            note(netns="relative"),
            b"",
            b'{"kind": "cniCacheV1", "con',
            b"\xff\xfe",
        ],
    )
    def test_others_are_none_of_ours(self, text: bytes) -> None:
        assert slipped(text) is None

    @given(st.binary(max_size=200))
    def test_whatever_a_file_holds_nothing_is_raised(self, text: bytes) -> None:
        assert slipped(text) is None


class Node:
    """What is on a node, in words. `captured`: whose pods are to be; `fails`: what ADD raises."""

    def __init__(self, root: Path) -> None:
        self.now = time.time()  # files have the real time
        self.notes: list[bytes] = []
        self.netns = {NETNS}
        self.captured = {"web-1"}
        self.fails: Exception | None = None
        self.broken: set[str] = set()
        self.done: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.records = Records(str(root / "pods"))
        self.passed = PassedFiles(str(root / "passed"), self.clock)
        self.edge = Edge(
            notes=lambda: self.notes,
            is_there=lambda path: path in self.netns,
            add=self.add,
            is_fine=lambda record: record.container_id not in self.broken,
            load=self.load,
            forget=lambda one: self.done.append(("forget", one)),
            say=self.said.append,
        )

    def clock(self) -> float:
        return self.now

    def add(self, request: Request) -> None:
        self.done.append(("add", request.container_id))
        if self.fails:
            raise self.fails
        assert request.sandbox
        if request.sandbox.name in self.captured:
            self.records.write(record(request.container_id))

    def load(self, one: Record) -> None:
        self.done.append(("load", one.container_id))
        if self.fails:
            raise self.fails
        self.broken.discard(one.container_id)

    def look(self) -> list[tuple[str, str]]:
        self.done.clear()
        find_slipped(self.records, self.passed, self.edge)
        find_broken(self.records, self.edge)
        return list(self.done)


def record(container: str = "c1") -> Record:
    return Record(container, NETNS, "shop", "web-1", "u-1", CONFIG)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    return Node(tmp_path)


def test_a_pod_is_repaired_once(node: Node) -> None:
    node.notes = [note()]
    assert node.look() == [("add", "c1")]
    assert node.look() == []
    assert node.said == ["repaired pod shop/web-1: it was started while the plugin was away"]


def test_a_pod_that_is_not_to_be_captured_is_asked_about_once_also_by_another_agent(node: Node, tmp_path: Path) -> None:
    node.notes, node.captured = [note()], set()
    assert node.look() == [("add", "c1")]
    assert (node.look(), node.said) == ([], [])
    successor = Node(tmp_path)
    successor.notes = node.notes
    assert successor.look() == []
    # Its sandbox ends, and another one of the same name, which no runtime makes, would be asked about again.
    successor.notes = []
    successor.look()
    successor.notes = node.notes
    assert successor.look() == [("add", "c1")]


@pytest.mark.parametrize(
    "error", [CNIError(Code.TRY_AGAIN_LATER, "no API server"), CaptureError("nft", "no", "look"), OSError("taken")]
)
def test_what_fails_is_said_once_and_tried_again(node: Node, error: Exception) -> None:
    node.notes, node.fails = [note()], error
    assert node.look() == [("add", "c1")]
    assert node.look() == []
    node.now += RETRY_SECONDS + 1
    assert node.look() == [("add", "c1")]
    assert len(node.said) == 1
    assert str(error) in node.said[0]
    node.fails = None
    assert node.look() == [("add", "c1")]
    assert "repaired" in node.said[1]


def test_a_sandbox_that_has_ended_is_not_asked_about(node: Node) -> None:
    node.notes, node.netns = [note()], set()
    assert node.look() == []


def test_one_that_ends_while_it_is_repaired_is_forgotten(node: Node) -> None:
    node.notes = [note()]
    there = iter([True, False])
    edge = Edge(*(getattr(node.edge, name) for name in Edge.__struct_fields__))
    edge = Edge(edge.notes, lambda _: next(there), *(getattr(edge, name) for name in Edge.__struct_fields__[2:]))
    find_slipped(node.records, node.passed, edge)
    assert node.done == [("add", "c1"), ("forget", "c1")]
    assert list(node.records.all()) == []


def test_rules_come_back_where_they_are_gone_and_nowhere_else(node: Node) -> None:
    for container in ("c1", "c2"):
        node.records.write(record(container))
    node.broken = {"c2"}
    assert node.look() == [("load", "c2")]
    assert node.look() == []
    assert node.said == ["repaired pod shop/web-1: it had lost its rules"]


def test_rules_that_cannot_come_back_are_told(node: Node) -> None:
    node.records.write(record())
    node.broken, node.fails = {"c1"}, CaptureError("nft", "found no", "advice")
    assert node.look() == [("load", "c1")]
    assert "cannot be repaired" in node.said[0]


def test_pods_that_ended_unheard_of_are_forgotten(node: Node) -> None:
    node.records.write(record())
    node.netns.clear()
    assert node.look() == [("forget", "c1")]
    assert list(node.records.all()) == []


def test_when_to_look(tmp_path: Path) -> None:
    now = [100.0]
    schedule = Schedule(str(tmp_path), lambda: now[0])
    assert schedule.due() == (True, True)
    assert schedule.due() == (False, False)
    (tmp_path / "results").mkdir()
    assert schedule.due() == (True, False)
    assert schedule.due() == (False, False)
    now[0] += SWEEP_SECONDS
    assert schedule.due() == (True, True)
