"""Pods whose sandboxes were made without the plugin, and pods that lost their rules, on the real kernel by the real agent."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.node_agent import PREVIOUS, Node
from lab.shim import COMPILER
from netns.capture_lab import Pod, inside
from netns.pod_sidecar import eventually
from netns.test_node import BareSidecar
from weir_sidecar.contract.config import FailureMode, Setup, SidecarConfig
from weir_sidecar.netsetup import capture
from weir_sidecar.netsetup.nftables import Nft

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc) is here to compile cni/shim.c"),
]
NAME = f"wr{os.getpid()}"
CNI = SidecarConfig(setup=Setup.CNI)


class RepairingNode(Node):
    """A node whose runtime notes what it made, and whose agent reads that."""

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    def start(self, *more: str) -> None:
        super().start("--repair-cache", str(self.cache), *more)

    def made(self, netns: str, container: str = "c1", plugins: tuple[str, ...] = ("bridge", "portmap")) -> Path:
        """What the runtime leaves of a sandbox of pod shop/web-1."""
        conflist = {"name": "main", "plugins": [{"type": one} for one in plugins]}
        interfaces = [{"name": "cni0"}, {"name": "eth0", "sandbox": netns}]
        note = {
            "kind": "cniCacheV1",
            "containerId": container,
            "config": base64.b64encode(json.dumps(conflist).encode()).decode(),
            "ifName": "eth0",
            "networkName": "main",
            "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "web-1"], ["K8S_POD_UID", "u-1"]],
            "result": {**PREVIOUS, "interfaces": interfaces},
        }
        path = self.cache / "results" / f"main-{container}-eth0"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(note))
        return path


@pytest.fixture(scope="module")
def one_node() -> Iterator[RepairingNode]:
    with (
        tempfile.TemporaryDirectory(prefix="wr-", dir="/tmp") as directory,
        RepairingNode(Path(directory)) as made,
    ):
        yield made


@pytest.fixture
def node(one_node: RepairingNode) -> Iterator[RepairingNode]:
    """The node, and after the test none of its pods."""
    yield one_node
    shutil.rmtree(one_node.cache / "results", ignore_errors=True)
    for container in one_node.records():
        assert one_node.ask("DEL", container=container).returncode == 0
    one_node.api.pods.clear()
    one_node.api.authorized.clear()
    (one_node.directory / "log").write_text("")


@pytest.fixture
def netns(node: RepairingNode) -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", NAME], check=True)
    yield f"/run/netns/{NAME}"
    subprocess.run(["ip", "netns", "del", NAME], capture_output=True, check=False)


def missing() -> tuple[str, ...]:
    with inside(NAME):
        return capture.check(CNI)


def test_a_pod_that_started_without_the_plugin_is_captured_and_served(node: RepairingNode, netns: str) -> None:
    node.api.add("shop/web-1", CNI)
    node.made(netns)
    eventually(lambda: node.records() == {"c1"})
    assert missing() == ()
    eventually(lambda: "repaired pod shop/web-1" in node.log)
    # From now on it is a pod as any: the runtime's own requests find it, and so does the agent's successor.
    assert node.ask("CHECK", netns).returncode == 0
    node.stop()
    node.start()
    assert node.ask("DEL", netns).returncode == 0
    assert node.records() == set()


def test_rules_that_were_lost_come_back_and_pods_that_are_fine_are_not_touched(node: RepairingNode, netns: str) -> None:
    node.api.add("shop/web-1", CNI)
    assert node.ask("ADD", netns).returncode == 0
    node.stop()
    with inside(NAME), Nft() as nft:
        nft.run("add table inet theirs\ndelete table inet weir")
    node.start()
    eventually(lambda: "it had lost its rules" in node.log)
    assert missing() == ()
    # A rule of another version of us answers as well: it stays.
    with inside(NAME), Nft() as nft:
        nft.run("add chain inet weir of_another_version")
    asked = len(node.api.authorized)
    node.stop()
    node.start()
    eventually(lambda: node.ask("CHECK", netns).returncode == 0)
    with inside(NAME):
        listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    assert "of_another_version" in listed
    assert "theirs" in listed
    assert (len(node.api.authorized), node.log.count("it had lost its rules")) == (asked, 1)


class Slipped(BareSidecar):
    """A sidecar in a pod that the plugin did not run for."""

    def set_up(self) -> None:
        self.node.api.add("shop/web-1", self.config)


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with Pod(tmp_path) as made:
        yield made


def test_a_pod_that_fails_open_is_captured_as_soon_as_its_sidecar_finds_rules(node: RepairingNode, pod: Pod) -> None:
    with Slipped(pod, node, failure_mode=FailureMode.OPEN) as sidecar:
        assert sidecar.issuer() == "origin"
        node.made(f"/run/netns/{pod.pod}")
        # It starts itself anew. Here its user may not execute the interpreter; then the kubelet starts it.
        eventually(lambda: "starting anew" in sidecar.log)
        sidecar.stop()
        sidecar.start()
        eventually(lambda: sidecar.issuer() == "weir")
        assert pod.udp(4, 123) == "far"
    states = [(one["captured"], one["reason"]) for one in sidecar.records if one.get("record") == "capture"]
    assert states == [(False, "plugin_missed"), (True, "repaired")]
