"""The sockets of a hold: one a family, on which held SYNs come, and packets go as they are.

The rules of capture turn a SYN that is to be held into a packet of another protocol (`wire.syn.HELD_PROTOCOL`), once they
have found a listener for it. The kernel gives it to raw sockets of that protocol, and never to TCP. Raw sockets, unlike
packet(7), neither see nor send anything past the rules. Opening one needs NET_RAW; using one does not (raw(7)).
"""

import socket
import struct
from collections.abc import Iterator

import msgspec

from weir_sidecar.contract.config import Marks
from weir_sidecar.edge.listeners import has_ipv6
from weir_sidecar.edge.socket_filter import receive_captured
from weir_sidecar.wire.syn import HELD_PROTOCOL, Syn, held4, held6

_PACKET_BYTES = 2048
_CONTROL_BYTES = 64
_BUFFER_BYTES = 1 << 20
"""Asked for; net.core.rmem_max bounds it. A SYN of a burst that finds no room is sent again by its client."""

# linux/in6.h, asm-generic/socket.h, linux/sock_diag.h; not in Python's socket module.
_IPV6_HDRINCL = 36
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_DROPS = 8


class SynTap(msgspec.Struct, frozen=True):
    """One raw socket a family, non-blocking."""

    raw: dict[int, socket.socket]

    @classmethod
    def open(cls, marks: Marks) -> "SynTap":
        """Open them. Raises `PermissionError` without NET_RAW."""
        families = (socket.AF_INET, socket.AF_INET6) if has_ipv6() else (socket.AF_INET,)
        return cls({int(family): _open(family, marks) for family in families})

    def send(self, packet: bytes, to: str) -> None:
        """Send a packet with its IP header. One that is lost is sent again by the client."""
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        try:
            self.raw[family].sendto(packet, (to, 0))
        except OSError:
            return

    def lost(self) -> int:
        """How many SYNs found no room in the sockets' buffers, since they were opened."""
        return sum(
            _MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_DROPS]
            for sock in self.raw.values()
        )

    def close(self) -> None:
        """Close them all."""
        for sock in self.raw.values():
            sock.close()


def waiting(sock: socket.socket, most: int) -> Iterator[Syn]:
    """The held SYNs that wait on a socket of a tap, `most` packets at a time."""
    read = _read4 if sock.family == socket.AF_INET else _read6
    for _ in range(most):
        try:
            syn = read(sock)
        except OSError:
            return  # nothing more
        if syn is not None:
            yield syn


def _read4(sock: socket.socket) -> Syn | None:
    return held4(sock.recv(_PACKET_BYTES))


def _read6(sock: socket.socket) -> Syn | None:
    segment, ancillary, _, client = sock.recvmsg(_PACKET_BYTES, _CONTROL_BYTES)
    # struct in6_pktinfo (RFC 3542): the address that the packet was sent to, and the interface.
    destination = next((data[:16] for _, kind, data in ancillary if kind == socket.IPV6_PKTINFO), bytes(16))
    return held6(segment, socket.inet_pton(socket.AF_INET6, client[0]), destination)


def _open(family: socket.AddressFamily, marks: Marks) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, HELD_PROTOCOL)
    receive_captured(sock, marks)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    return sock
