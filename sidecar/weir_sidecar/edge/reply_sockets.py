"""Answers that come from the address that was asked.

With TPROXY from transparent UDP sockets bound to other hosts' addresses; with Redirect from the listener itself, where
connection tracking puts the address right. IP_TRANSPARENT needs NET_RAW, a port below 1024 NET_BIND_SERVICE. Where the process has neither, `open_socket` is
another: one that gets the socket from a process that has.
"""

import errno
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Protocol

from weir_sidecar.contract.flow import FlowError
from weir_sidecar.edge.icmp import Sockaddr, family_of

_IPV6_TRANSPARENT = 75
LIMIT = 256


def transparent_socket(source: Sockaddr) -> socket.socket:
    """A UDP socket bound to `source`, which need not be an address of this host. Raises OSError."""
    family = family_of(source)
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        else:
            sock.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
        sock.bind(source)
    except OSError:
        sock.close()
        raise
    return sock


def lost_by(number: int) -> FlowError | None:
    """Why an answer did not reach its client, by what `Replies.send` returned. EHOSTDOWN is `HandedOver.reply`'s."""
    if number == errno.EHOSTDOWN:
        return FlowError.AGENT_AWAY
    return FlowError.CLIENT_UNREACHABLE if number else None


class Replies(Protocol):
    """Sends datagrams to clients from the addresses that they asked."""

    def send(self, data: bytes, client: Sockaddr, source: Sockaddr) -> int:
        """Send `data` to `client` from `source`. Returns 0 or the errno that lost it."""

    def close(self) -> None:
        """Close what was opened for it."""


class ReplySockets:
    """Sends datagrams from any (address, port); the least recently used sockets are closed."""

    __slots__ = ("_limit", "_open_socket", "_socks")

    def __init__(
        self, open_socket: Callable[[Sockaddr], socket.socket] = transparent_socket, limit: int = LIMIT
    ) -> None:
        self._open_socket = open_socket
        self._limit = limit
        self._socks: OrderedDict[Sockaddr, socket.socket] = OrderedDict()

    def send(self, data: bytes, client: Sockaddr, source: Sockaddr) -> int:
        """Send `data` to `client` from `source`. Returns 0 or the errno that lost it."""
        try:
            sock = self._socks.get(source)
            if sock is None:
                sock = self._add(source)
            else:
                self._socks.move_to_end(source)
            sock.sendto(data, client)
        except OSError as error:
            return error.errno or 0
        return 0

    def _add(self, source: Sockaddr) -> socket.socket:
        sock = self._socks[source] = self._open_socket(source)
        if len(self._socks) > self._limit:
            self._socks.popitem(last=False)[1].close()
        return sock

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._socks.values():
            sock.close()
        self._socks.clear()


class ListenerReplies:
    """Mode Redirect: answers leave from the address that the kernel redirected the query to, which is loopback's."""

    __slots__ = ("_socks",)

    def __init__(self, listeners: Iterable[socket.socket]) -> None:
        self._socks = {sock.family: sock for sock in listeners}

    def send(self, data: bytes, client: Sockaddr, source: Sockaddr) -> int:  # noqa: ARG002 - the kernel knows it
        """Send `data` to `client`; connection tracking makes it come from `source`. Returns 0 or an errno."""
        family = family_of(client)
        try:
            self._socks[family].sendmsg([data], [_FROM_LOOPBACK[family]], 0, client)
        except OSError as error:
            return error.errno or 0
        return 0

    def close(self) -> None:
        """The listeners belong to others."""


# struct in_pktinfo (ip(7)) and in6_pktinfo (RFC 3542): interface, source address.
_FROM_LOOPBACK: dict[int, tuple[int, int, bytes]] = {
    socket.AF_INET: (
        socket.IPPROTO_IP,
        socket.IP_PKTINFO,
        struct.pack("=I4s4s", 0, socket.inet_pton(socket.AF_INET, "127.0.0.1"), bytes(4)),
    ),
    socket.AF_INET6: (
        socket.IPPROTO_IPV6,
        socket.IPV6_PKTINFO,
        struct.pack("=16sI", socket.inet_pton(socket.AF_INET6, "::1"), 0),
    ),
}
