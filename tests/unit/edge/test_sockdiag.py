"""The client's UID, found with real sockets that another UID opened."""

import os
import socket
import struct
from contextlib import closing, contextmanager

import pytest

from weir_sidecar.edge.sockdiag import SockDiag

OTHER_UID = 45678
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to open a socket as another UID")


@pytest.fixture
def diag():
    with closing(SockDiag()) as line:
        yield line


@contextmanager
def as_uid(uid):
    """Sockets belong to the UID that makes them."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def connected(family, address, target, kind=socket.SOCK_STREAM):
    """A client of another UID connected to a listener of ours, and the accepted socket (None for UDP)."""
    listening = socket.AF_INET if "." in address and ":" not in address else socket.AF_INET6
    with closing(socket.socket(listening, kind)) as listener:
        listener.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            listener.listen()
        with as_uid(OTHER_UID):
            client = socket.socket(family, kind)
        with closing(client):
            client.connect((target, listener.getsockname()[1]))
            if kind != socket.SOCK_STREAM:
                yield client, None
                return
            with closing(listener.accept()[0]) as accepted:
                yield client, accepted


PATHS = [
    (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    (socket.AF_INET6, "::1", "::1"),
    (socket.AF_INET6, "127.0.0.1", "::ffff:127.0.0.1"),
]


@as_root
@pytest.mark.parametrize(("family", "address", "target"), PATHS)
def test_tcp_tells_the_two_ends_of_one_connection_apart(diag, family, address, target):
    with connected(family, address, target) as (client, accepted):
        here, there = client.getsockname(), client.getpeername()
        assert diag.uid_of(here, there, TCP) == OTHER_UID
        assert diag.uid_of(accepted.getpeername(), accepted.getsockname(), TCP) == OTHER_UID
        assert diag.uid_of(there, here, TCP) == 0


@as_root
@pytest.mark.parametrize(("family", "address", "target"), PATHS)
def test_udp_connected_and_not(diag, family, address, target):
    with connected(family, address, target, socket.SOCK_DGRAM) as (client, _):
        assert diag.uid_of(client.getsockname(), client.getpeername(), UDP) == OTHER_UID
    with as_uid(OTHER_UID):
        loose = socket.socket(family, socket.SOCK_DGRAM)
    with closing(loose):
        loose.sendto(b"x", (target, 9))
        port = loose.getsockname()[1]
        assert diag.uid_of((target, port), (target, 9), UDP) == OTHER_UID


def test_unknown_flows_have_no_uid(diag):
    assert diag.uid_of(("127.0.0.1", 1), ("127.0.0.1", 2), TCP) is None
    assert diag.uid_of(("::1", 1), ("::1", 2), UDP) is None
    assert diag.uid_of(("127.0.0.1", 1), ("::1", 2), TCP) is None


def test_a_listener_on_the_clients_port_is_not_the_client(diag):
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        assert diag.uid_of(listener.getsockname(), ("127.0.0.1", 9), TCP) is None


@as_root
def test_a_closed_client_has_no_uid_rather_than_roots(diag):
    with connected(socket.AF_INET, "127.0.0.1", "127.0.0.1") as (client, accepted):
        here, there = client.getsockname(), client.getpeername()
        client.close()
        assert diag.uid_of(here, there, TCP) in (None, OTHER_UID)  # FIN-WAIT: newer kernels still know
        accepted.close()
        assert diag.uid_of(here, there, TCP) is None  # TIME-WAIT


@as_root
def test_an_answer_to_an_earlier_question_is_not_taken(diag):
    stale = struct.pack("=IHHIIBBBBI", 72, 20, 1, 0xDEAD, 0, socket.AF_INET, TCP, 0, 0, 0xFFFFFFFF) + bytes(56)
    diag._socket.send(stale)  # its answer waits in the queue
    with connected(socket.AF_INET, "127.0.0.1", "127.0.0.1") as (client, _):
        assert diag.uid_of(client.getsockname(), client.getpeername(), TCP) == OTHER_UID


@as_root
def test_it_works_without_privileges(diag):
    with connected(socket.AF_INET, "127.0.0.1", "127.0.0.1") as (client, _), as_uid(OTHER_UID + 1):
        assert diag.uid_of(client.getsockname(), client.getpeername(), TCP) == OTHER_UID
