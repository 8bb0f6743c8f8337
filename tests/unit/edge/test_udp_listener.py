import asyncio
import socket
import struct

import pytest

from lab.dns_server import UDPServer, until
from lab.edge import Surroundings
from weir_sidecar.contract.config import Capture, OtherUDP, QuicMode, SidecarConfig
from weir_sidecar.contract.flow import Reason
from weir_sidecar.edge import udp_listener
from weir_sidecar.edge.udp_listener import UDPDispatch, UDPListener, is_local, sockaddr

CLIENT = ("192.0.2.10", 40000)


def test_reads_all_that_waits_with_its_client_and_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_listener, "BURST", 2)

    async def main() -> None:
        with UDPServer() as client:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            sock.bind(("127.0.0.1", 0))
            got = []
            destination = ("198.51.100.1", 53)
            listener = UDPListener(
                asyncio.get_running_loop(), sock, lambda *datagram: got.append(datagram), destination
            )
            sent = [b"", b"one", b"x" * 65507, b"two", b"three"]
            for data in sent:
                client.sock.sendto(data, sock.getsockname())
            await until(lambda: len(got) == len(sent))
            assert got == [(data, client.address, destination) for data in sent]
            listener.close()
            assert sock.fileno() == -1

    asyncio.run(main())


def test_a_datagram_without_a_destination_is_nobodys() -> None:
    async def main() -> None:
        with UDPServer() as client:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            sock.bind(("127.0.0.1", 0))
            got = []
            listener = UDPListener(asyncio.get_running_loop(), sock, lambda *datagram: got.append(datagram))
            client.sock.sendto(b"one", sock.getsockname())
            await asyncio.sleep(0.01)
            assert not got
            listener.close()

    asyncio.run(main())


def test_reads_the_kernels_addresses() -> None:
    four = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", 53, bytes((198, 51, 100, 1)))
    assert sockaddr(four) == ("198.51.100.1", 53)
    six = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16s", 53, 0, b"\xfe\x80" + bytes(13) + b"\1")
    assert sockaddr(six + struct.pack("=I", 3)) == ("fe80::1", 53, 0, 3)


def test_local_addresses() -> None:
    assert is_local(("127.0.0.1", 1))
    assert is_local(("::1", 1, 0, 0))
    assert is_local(("::1", 1))
    assert not is_local(("198.51.100.1", 1))


class Takers:
    def __init__(self) -> None:
        self.got: list[object] = []

    def receive(self, data, client, destination) -> None:
        self.got.append("dns" if destination[1] == 53 else "relay")

    def refuse(self, data, client, destination, reason, *, tell=True) -> None:
        self.got.append((reason, tell))


@pytest.mark.parametrize(
    ("capture", "destination", "expected"),
    [
        (Capture(), ("198.51.100.1", 53), "dns"),
        (Capture(other_udp=OtherUDP.DENY), ("198.51.100.1", 53), "dns"),
        (Capture(), ("198.51.100.1", 443), (Reason.QUIC_REJECTED, True)),
        (Capture(quic=QuicMode.ALLOW), ("198.51.100.1", 443), "relay"),
        (Capture(quic=QuicMode.ALLOW, other_udp=OtherUDP.DENY), ("198.51.100.1", 443), (Reason.OTHER_UDP_DENIED, True)),
        (Capture(), ("198.51.100.1", 123), "relay"),
        (Capture(other_udp=OtherUDP.DENY), ("198.51.100.1", 123), (Reason.OTHER_UDP_DENIED, True)),
        (Capture(), ("198.51.100.1", 15801), "relay"),
        (Capture(), ("127.0.0.1", 15801), (Reason.DIRECT_TO_PROXY, False)),
    ],
)
def test_dispatch(capture: Capture, destination, expected) -> None:
    takers = Takers()
    UDPDispatch(Surroundings(SidecarConfig(capture=capture)).context, takers, takers)(b"x", CLIENT, destination)
    assert takers.got == [expected]
