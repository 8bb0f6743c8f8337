"""Answers that come from the address that was asked: transparent UDP sockets bound to other hosts' addresses.

IP_TRANSPARENT needs NET_RAW, a port below 1024 NET_BIND_SERVICE. Where the process has neither, `open_socket` is
another: one that gets the socket from a process that has.
"""

import socket
from collections import OrderedDict
from collections.abc import Callable

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
