"""The tap on the real kernel: what reaches it, and what does not."""

import errno
import socket
from collections.abc import Iterator

import pytest

from netns.capture_lab import FAMILY, FAR, POD, Pod, inside
from samples.syn_packet import syn
from weir_sidecar.contract.config import FailureMode, SidecarConfig
from weir_sidecar.edge.listeners import open_listeners
from weir_sidecar.edge.syn_tap import SynTap, waiting
from weir_sidecar.node.namespaces import create_as
from weir_sidecar.wire.syn import HELD_PROTOCOL, Syn, admitted, reset

pytestmark = pytest.mark.netns
CONFIG = SidecarConfig(failure_mode=FailureMode.CLOSED)
BOTH = pytest.mark.parametrize("version", [4, 6])
_IPV6_HDRINCL = 36


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with Pod(tmp_path_factory.mktemp("pod")) as made:
        made.apply(CONFIG)
        yield made


@pytest.fixture
def tap(pod: Pod) -> Iterator[SynTap]:
    with inside(pod.pod):
        create_as(CONFIG.identity.uid)
        try:
            made = SynTap.open(CONFIG.marks)
        finally:
            create_as(0)
        yield made
    made.close()


@pytest.fixture
def listeners(tap: SynTap) -> Iterator[dict[socket.AddressFamily, socket.socket]]:
    made = open_listeners(CONFIG)
    yield {one.family: one for one in made.tcp}
    made.close()


def held(tap: SynTap, version: int, seconds: float = 3.0) -> Syn | None:
    """The next one that comes."""
    sock = tap.raw[FAMILY[version]]
    sock.settimeout(seconds)
    try:
        return next(waiting(sock, 1), None)
    finally:
        sock.setblocking(False)


def connecting(pod: Pod, version: int) -> socket.socket:
    client = pod.new_socket(version, socket.SOCK_STREAM)
    client.setblocking(False)
    assert client.connect_ex((FAR[version], 80)) == errno.EINPROGRESS
    return client


@BOTH
def test_a_syn_is_held_until_it_is_admitted(pod: Pod, tap: SynTap, listeners: dict, version: int) -> None:
    with pod.wire() as frames, connecting(pod, version) as client:
        held_syn = held(tap, version)
        assert held_syn is not None
        assert (held_syn.client, held_syn.destination) == (client.getsockname()[:2], (FAR[version], 80))
        listener = listeners[FAMILY[version]]
        with pytest.raises(BlockingIOError):
            listener.accept()
        tap.send(admitted(held_syn), FAR[version])
        client.settimeout(3)
        listener.settimeout(3)
        accepted, peer = listener.accept()
        with accepted:
            assert (peer[:2], accepted.getsockname()[:2]) == (held_syn.client, held_syn.destination)
            accepted.sendall(b"let in")
            assert client.recv(100) == b"let in"
    assert frames == []
    assert tap.lost() == 0


def test_a_syn_that_is_sent_again_comes_again(pod: Pod, tap: SynTap, listeners: dict) -> None:
    with connecting(pod, 4):
        first, again = held(tap, 4), held(tap, 4)
        assert first is not None
        assert again is not None
        assert (again.client, again.destination, again.sequence) == (first.client, first.destination, first.sequence)


@BOTH
def test_a_held_syn_is_refused(pod: Pod, tap: SynTap, listeners: dict, version: int) -> None:
    with connecting(pod, version) as client:
        held_syn = held(tap, version)
        assert held_syn is not None
        tap.send(reset(held_syn), held_syn.client[0])
        client.settimeout(3)
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)


@BOTH
def test_without_a_listener_nothing_is_held(pod: Pod, tap: SynTap, version: int) -> None:
    assert pod.tcp(version) == "ConnectionRefusedError"
    assert held(tap, version, 0.05) is None


@BOTH
@pytest.mark.parametrize("within", [True, False], ids=["from the pod", "from outside"])
def test_a_packet_that_only_looks_held_does_not_reach_it(pod: Pod, tap: SynTap, version: int, within: bool) -> None:
    """Its protocol number is anybody's; the rules' mark is not."""
    family, ends = FAMILY[version], ((FAR[version], 40000), (POD[version], 443))
    with inside(pod.pod if within else pod.far), socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as forging:
        forging.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, CONFIG.marks.mark)
        if version == 6:
            forging.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        for mark in (0, CONFIG.marks.mark):
            forging.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            try:
                forging.sendto(syn(version, ends=ends, protocol=HELD_PROTOCOL), (POD[version], 0))
            except PermissionError:
                assert mark  # the rules dropped it where it was sent
    assert held(tap, version, 0.05) is None


def test_what_finds_no_room_is_counted(pod: Pod, tap: SynTap, listeners: dict) -> None:
    tap.raw[socket.AF_INET].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    clients = [connecting(pod, 4) for _ in range(8)]
    assert tap.lost() > 0
    assert held(tap, 4) is not None
    for client in clients:
        client.close()
