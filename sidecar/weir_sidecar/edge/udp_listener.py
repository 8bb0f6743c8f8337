"""Datagrams that the kernel brought here, each with the address it was sent to, and who takes care of them.

Many datagrams per wakeup, but bounded, so that other flows and the heartbeat get their turn.
"""

import asyncio
import socket
import struct
from collections.abc import Callable

from weir_sidecar.contract.config import OtherUDP, QuicMode
from weir_sidecar.contract.flow import Reason
from weir_sidecar.edge.context import EdgeContext
from weir_sidecar.edge.dns_forwarder import DNSForwarder
from weir_sidecar.edge.icmp import Sockaddr, family_of
from weir_sidecar.edge.listeners import IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR
from weir_sidecar.edge.udp_relay import UDPRelay

type Receive = Callable[[bytes, Sockaddr, Sockaddr], None]
"""Takes a datagram, its client, and the address the client sent it to."""

BURST = 64
"""Datagrams per wakeup."""
_ANCILLARY = 128
_REMEMBERED = 1024

DNS_PORT, QUIC_PORT = 53, 443


class UDPListener:
    """Reads one socket. `destination` stands in for the original one where the kernel does not tell it (Redirect)."""

    __slots__ = ("_buffer", "_destination", "_loop", "_receive", "_remembered", "_sock", "_view")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        receive: Receive,
        destination: Sockaddr | None = None,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._receive = receive
        self._destination = destination
        self._buffer = bytearray(65536)
        self._view = memoryview(self._buffer)
        self._remembered: dict[bytes, Sockaddr] = {}
        loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Read no more, and close the socket, so that TPROXY finds no listener."""
        self._loop.remove_reader(self._sock.fileno())
        self._readable()  # what has arrived would be lost
        self._sock.close()

    def _readable(self) -> None:
        receive_into, receive, view = self._sock.recvmsg_into, self._receive, self._view
        into = [self._buffer]
        for _ in range(BURST):
            try:
                size, ancillary, _, client = receive_into(into, _ANCILLARY)
            except OSError:
                # Nothing more to read; or an error that belongs to no datagram.
                return
            destination = self._destination if self._destination is not None else self._original(ancillary)
            if destination is not None:
                receive(bytes(view[:size]), client, destination)

    def _original(self, ancillary: list[tuple[int, int, bytes]]) -> Sockaddr | None:
        for level, kind, data in ancillary:
            if (level, kind) in _ORIGINAL_DESTINATION:
                address = self._remembered.get(data)
                if address is None:
                    if len(self._remembered) >= _REMEMBERED:
                        self._remembered.clear()
                    address = self._remembered[data] = sockaddr(data)
                return address
        return None


_ORIGINAL_DESTINATION = {
    (socket.SOL_IP, IP_RECVORIGDSTADDR),
    (socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR),
}


def sockaddr(data: bytes) -> Sockaddr:
    """A kernel's `struct sockaddr_in` or `sockaddr_in6` as the socket module writes it (ip(7), ipv6(7))."""
    if struct.unpack_from("=H", data)[0] == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, data[4:8]), int.from_bytes(data[2:4])
    (scope,) = struct.unpack_from("=I", data, 24)
    return socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4]), 0, scope


def is_local(address: Sockaddr) -> bool:
    """Whether this network namespace has the address: only then can an ordinary socket be bound to it."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.bind((address[0], 0, *address[2:]))
        except OSError:
            return False
    return True


class UDPDispatch:
    """Gives each datagram to who takes care of it: DNS, the relay, or a refusal."""

    __slots__ = ("_context", "_dns", "_is_local", "_relay")

    def __init__(
        self,
        context: EdgeContext,
        dns: DNSForwarder,
        relay: UDPRelay,
        is_local: Callable[[Sockaddr], bool] = is_local,
    ) -> None:
        self._context = context
        self._dns = dns
        self._relay = relay
        self._is_local = is_local

    def __call__(self, data: bytes, client: Sockaddr, destination: Sockaddr) -> None:
        """Take one datagram. A datagram to the proxy itself gets no answer: it was captured by no rule of ours."""
        config = self._context.config
        port = destination[1]
        if port == DNS_PORT:
            self._dns.receive(data, client, destination)
        elif port == config.ports.udp and self._is_local(destination):
            self._relay.refuse(data, client, destination, Reason.DIRECT_TO_PROXY, tell=False)
        elif port == QUIC_PORT and config.capture.quic is QuicMode.REJECT:
            self._relay.refuse(data, client, destination, Reason.QUIC_REJECTED)
        elif config.capture.other_udp is OtherUDP.DENY:
            self._relay.refuse(data, client, destination, Reason.OTHER_UDP_DENIED)
        else:
            self._relay.receive(data, client, destination)
