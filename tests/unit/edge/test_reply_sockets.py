import errno
import socket

from lab.dns_server import UDPServer
from weir_sidecar.edge.reply_sockets import ReplySockets


def bound(source) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(source)
    return sock


def test_sends_from_the_source_and_keeps_the_sockets_last_used() -> None:
    opened: list = []

    def open_socket(source) -> socket.socket:
        opened.append(source)
        return bound(source)

    with UDPServer() as client:
        client.sock.setblocking(True)
        sources = [(f"127.0.0.{n}", 40053) for n in (2, 3, 4)]
        replies = ReplySockets(open_socket, limit=2)
        for n in (0, 1, 0, 2, 0, 1):
            assert replies.send(b"x", client.address, sources[n]) == 0
            assert client.sock.recvfrom(10) == (b"x", sources[n])
        assert opened == [sources[n] for n in (0, 1, 2, 1)]
        replies.close()


def test_a_source_that_cannot_be_had_is_an_errno() -> None:
    def open_socket(source) -> socket.socket:
        raise OSError(errno.EADDRNOTAVAIL, "not here")

    assert ReplySockets(open_socket).send(b"x", ("127.0.0.1", 9), ("198.51.100.1", 40053)) == errno.EADDRNOTAVAIL
