"""Beside a mesh that redirects with NAT, as Istio and Linkerd do: application, Weir, mesh, world."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netns.capture_lab import FAR, Pod, inside, sh
from weir_sidecar.contract.config import Capture, Exclude, FailureMode, IDRange, SidecarConfig

pytestmark = pytest.mark.netns
MESH, MESH_PORT, PROXY = 1337, 15001, 15801
NAT = f"""
table inet mesh {{
    chain output {{
        type nat hook output priority -100
        oif lo return
        meta skuid {MESH} return
        meta l4proto tcp redirect to :{MESH_PORT}
    }}
}}
"""


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with Pod(tmp_path) as made:
        yield made


@contextmanager
def mesh(pod: Pod) -> Iterator[None]:
    """The mesh's rules, and its proxy, which says "mesh"."""
    rules = pod.directory / "mesh.nft"
    rules.write_text(NAT)
    sh("ip", "netns", "exec", pod.pod, "nft", "-f", str(rules))
    with inside(pod.pod):
        listener = socket.create_server(("::", MESH_PORT), family=socket.AF_INET6, dualstack_ipv6=True)

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"mesh\n")

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize("failure_mode", FailureMode)
def test_the_application_meets_weir_and_weir_meets_the_mesh(pod: Pod, failure_mode: FailureMode) -> None:
    capture = Capture(connect_first=False, before_nat=True, exclude=Exclude(uids=(IDRange(MESH, MESH),)))
    pod.apply(SidecarConfig(failure_mode=failure_mode, capture=capture))
    with mesh(pod):
        pod.start()
        for version in (4, 6):
            assert pod.tcp(version, 80) == f"proxy {FAR[version]} 80"
            assert pod.udp(version, 53) == f"proxy {FAR[version]} 53"
            assert pod.tcp(version, 80, uid=PROXY) == "mesh"
            assert pod.tcp(version, 80, uid=MESH) == "far"
