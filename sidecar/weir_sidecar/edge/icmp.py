"""ICMP as the client would have got it: "unreachable" about a datagram that it sent (RFC 792, RFC 4443).

A raw socket per family; the client's kernel finds the socket by the header quoted in the message. Needs NET_RAW. And
the other way: what ICMP said about the datagrams that we sent (ip(7), IP_RECVERR).
"""

import errno
import socket
import struct
from collections.abc import Iterable, Iterator

from weir_sidecar.contract.flow import FlowError
from weir_sidecar.edge.socket_filter import receive_nothing
from weir_sidecar.wire.checksum import internet_checksum

type Sockaddr = tuple[str, int] | tuple[str, int, int, int]
"""An address as the socket module writes it: (address, port), for IPv6 with flow label and scope."""

_QUOTED = 512
"""Bytes of the datagram to quote: as many as fit in the smallest message every host must take (RFC 1812, 576)."""
_HEADERS = 48
"""Bytes of an IPv6 and a UDP header."""
_IP_RECVERR, _IPV6_RECVERR = 11, 25

# errno → ICMP code of "destination unreachable"; what the client's kernel turns back into the same errno.
_CODES = {
    socket.AF_INET: {errno.ECONNREFUSED: 3, errno.EHOSTUNREACH: 1, errno.ENETUNREACH: 0, errno.EACCES: 13},
    socket.AF_INET6: {errno.ECONNREFUSED: 4, errno.EHOSTUNREACH: 3, errno.ENETUNREACH: 0, errno.EACCES: 1},
}
_ERRORS = {
    errno.ECONNREFUSED: FlowError.UPSTREAM_REFUSED,
    errno.EHOSTUNREACH: FlowError.UPSTREAM_UNREACHABLE,
    errno.ENETUNREACH: FlowError.UPSTREAM_UNREACHABLE,
    errno.EACCES: FlowError.UPSTREAM_UNREACHABLE,
    errno.ETIMEDOUT: FlowError.UPSTREAM_TIMED_OUT,
    errno.ECONNRESET: FlowError.UPSTREAM_RESET,
    errno.EPIPE: FlowError.UPSTREAM_RESET,
}
_TYPES = {socket.AF_INET: 3, socket.AF_INET6: 1}


def upstream_error(number: int) -> FlowError:
    """What an errno of an upstream socket is called in a record."""
    return _ERRORS.get(number, FlowError.INTERNAL)


def family_of(address: Sockaddr) -> socket.AddressFamily:
    """AF_INET or AF_INET6, by how the address is written."""
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


class Unreachable:
    """Sends "destination unreachable" to clients on this machine; made with no sockets it sends nothing."""

    __slots__ = ("_socks",)

    def __init__(self, socks: dict[socket.AddressFamily, socket.socket]) -> None:
        self._socks = socks

    @classmethod
    def open(cls) -> "Unreachable":
        """Raw sockets for both families, or for IPv4 where the kernel has no IPv6. PermissionError without NET_RAW.

        They only send.
        """
        socks = {}
        for family, protocol in ((socket.AF_INET, socket.IPPROTO_ICMP), (socket.AF_INET6, socket.IPPROTO_ICMPV6)):
            try:
                sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT and family == socket.AF_INET6:
                    continue
                raise
            receive_nothing(sock)
            socks[family] = sock
        return cls(socks)

    @property
    def sockets(self) -> Iterable[socket.socket]:
        """One a family."""
        return self._socks.values()

    def send(self, client: Sockaddr, destination: Sockaddr, error: int, datagram: bytes = b"") -> None:
        """Tell `client` that its datagram to `destination` met `error`; other errors than ICMP's are not told."""
        self.quote(client[0], error, _quote(client, destination, datagram), client[2:])

    def quote(self, client: str, error: int, packet: bytes, scope: tuple[int, ...] = ()) -> None:
        """Tell the address `client` that its `packet`, with its IP header, met `error`."""
        family = family_of((client, 0))
        code = _CODES[family].get(error)
        sock = self._socks.get(family)
        if code is None or sock is None:
            return
        try:
            sock.sendto(unreachable(family, code, packet[: _QUOTED + _HEADERS]), (client, 0, *scope))
        except OSError:
            # Advice that cannot be given (no buffer, client's address gone) is lost, as it would be on the way.
            return

    def close(self) -> None:
        """Close both sockets."""
        for sock in self._socks.values():
            sock.close()


def unreachable(family: socket.AddressFamily, code: int, quoted: bytes) -> bytes:
    """The ICMP message; the kernel computes the checksum of ICMPv6 only."""
    message = struct.pack("!BBHI", _TYPES[family], code, 0, 0) + quoted
    if family == socket.AF_INET6:
        return message
    return message[:2] + internet_checksum(message).to_bytes(2) + message[4:]


def _quote(client: Sockaddr, destination: Sockaddr, datagram: bytes) -> bytes:
    family = family_of(destination)
    source, target = (socket.inet_pton(family, address[0]) for address in (client, destination))
    length = 8 + len(datagram)
    udp = struct.pack("!HHHH", client[1], destination[1], length, 0) + datagram[:_QUOTED]
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_UDP, 64) + source + target + udp
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, socket.IPPROTO_UDP, 0) + source + target
    return ip[:10] + internet_checksum(ip).to_bytes(2) + ip[12:] + udp


def connected(destination: Sockaddr) -> socket.socket:
    """A UDP socket to `destination`, non-blocking, that keeps the ICMP errors about it. Raises OSError."""
    family = family_of(destination)
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        sock.connect(destination)
    except OSError:
        sock.close()
        raise
    return sock


def errors_of(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Each ICMP error that waits on a `connected` socket: its errno, and as much of our datagram as was quoted."""
    while True:
        try:
            datagram, ancillary, _, _ = sock.recvmsg(_QUOTED, 256, socket.MSG_ERRQUEUE)
        except OSError:
            return
        for _, _, data in ancillary:
            yield struct.unpack_from("=I", data)[0], datagram
