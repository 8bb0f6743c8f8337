"""Queries on their way to a resolver over UDP, as hard to forge an answer to as those of a good client (RFC 5452).

A few connected sockets for each server, so that the kernel drops what comes from elsewhere. Their ports are random and
do not live long: a socket takes no new query after some seconds or some hundred queries, so that a quiet pod asks from
a new port each time and a busy one does not pay for a socket per query. Ids are random.
"""

import asyncio
import errno
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator

from weir_sidecar.edge.dns_query import DNSQuery
from weir_sidecar.edge.icmp import Sockaddr, connected, errors_of

SOCKETS_PER_SERVER = 4
SERVERS = 64
QUERIES_PER_SOCKET = 512
SOCKET_LIFE = 5.0
"""Seconds."""
SOCKETS = 512
"""In all. A client that asks more servers than that at once is refused, not the rest of the process."""
BURST = 64
_MAX_TRIES = 16


class UpstreamSocket:
    """A connected socket and the queries it waits for, by their id upstream."""

    __slots__ = ("born", "queries", "sock", "used")

    def __init__(self, sock: socket.socket, born: float) -> None:
        self.sock = sock
        self.born = born
        self.used = 0
        self.queries: dict[int, DNSQuery] = {}


class _RandomIDs:
    """Random 16-bit numbers, many for one call to the kernel."""

    __slots__ = ("_numbers", "_random")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._numbers: Iterator[int] = iter(())

    def __call__(self) -> int:
        number = next(self._numbers, None)
        if number is None:
            self._numbers = iter(memoryview(self._random(2048)).cast("H"))
            number = next(self._numbers)
        return number


def _sent(sock: socket.socket, message: bytes) -> bool:
    """Whether there was no error. A full buffer is none: the datagram is lost, as it may be on the way."""
    try:
        sock.send(message)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


class DNSUpstreams:
    """All sockets to resolvers. `answered` gets what came under a known id, `failed` each query that ICMP ended."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answered: Callable[[DNSQuery, bytes], bool],
        failed: Callable[[DNSQuery, int], None],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._loop = loop
        self._answered = answered
        self._failed = failed
        self._random = _RandomIDs(random)
        self._servers: OrderedDict[Sockaddr, list[UpstreamSocket | None]] = OrderedDict()
        self._open: set[UpstreamSocket] = set()
        self._buffer = bytearray(65536)
        self._view = memoryview(self._buffer)

    def send(self, query: DNSQuery, server: Sockaddr, now: float) -> UpstreamSocket:
        """Send the query to `server` under a new id. Raises OSError when there is no way to it."""
        upstream = self._socket(server, now)
        for _ in range(_MAX_TRIES):
            number = self._random()
            if number not in upstream.queries:
                break
        else:
            raise OSError(errno.EAGAIN, "no free id")
        query.upstream_id = number
        message = number.to_bytes(2) + query.data[2:]
        if not _sent(upstream.sock, message):
            # The error is about an earlier datagram, or it says that this one has no way out.
            self._errors(upstream)
            upstream.sock.send(message)
        upstream.queries[number] = query
        upstream.used += 1
        return upstream

    def repeat(self, query: DNSQuery, upstream: UpstreamSocket) -> None:
        """Send the query again, under the same id: the client did. An error ends it, as ICMP would."""
        if not _sent(upstream.sock, query.upstream_id.to_bytes(2) + query.data[2:]):
            self._errors(upstream)

    def forget(self, query: DNSQuery, upstream: UpstreamSocket) -> None:
        """Wait for the query's answer no more."""
        if upstream.queries.get(query.upstream_id) is query:
            del upstream.queries[query.upstream_id]

    def sweep(self, now: float) -> bool:
        """Close what is old and waits for nothing; whether any socket is left."""
        for upstream in list(self._open):
            if not upstream.queries and (now - upstream.born > SOCKET_LIFE or upstream.used >= QUERIES_PER_SOCKET):
                self._close(upstream)
        return bool(self._open)

    def close(self) -> None:
        """Close all sockets."""
        for upstream in list(self._open):
            self._close(upstream)
        self._servers.clear()

    def _socket(self, server: Sockaddr, now: float) -> UpstreamSocket:
        pool = self._servers.get(server)
        if pool is None:
            if len(self._servers) >= SERVERS:
                self._servers.popitem(last=False)
            pool = self._servers[server] = [None] * SOCKETS_PER_SERVER
        slot = self._random() % SOCKETS_PER_SERVER
        upstream = pool[slot]
        if (
            upstream is None
            or upstream.used >= QUERIES_PER_SOCKET
            or now - upstream.born > SOCKET_LIFE
            or upstream not in self._open
        ):
            if len(self._open) >= SOCKETS:
                raise OSError(errno.EMFILE, "too many resolvers at once")
            self._servers.move_to_end(server)
            upstream = pool[slot] = UpstreamSocket(connected(server), now)
            self._open.add(upstream)
            self._loop.add_reader(upstream.sock.fileno(), self._readable, upstream)
        return upstream

    def _close(self, upstream: UpstreamSocket) -> None:
        self._open.discard(upstream)
        self._loop.remove_reader(upstream.sock.fileno())
        upstream.sock.close()

    def _readable(self, upstream: UpstreamSocket) -> None:
        receive_into, view, queries = upstream.sock.recv_into, self._view, upstream.queries
        for _ in range(BURST):
            try:
                size = receive_into(self._buffer)
            except BlockingIOError:
                return
            except OSError:
                self._errors(upstream)
                return
            if size < 2:
                continue
            number = view[0] << 8 | view[1]
            query = queries.get(number)
            if query is not None and self._answered(query, bytes(view[:size])):
                queries.pop(number, None)

    def _errors(self, upstream: UpstreamSocket) -> None:
        """Tell the queries that ICMP was about: the one whose id was quoted, or all when too little was."""
        for number, datagram in errors_of(upstream.sock):
            if len(datagram) >= 2:
                quoted = upstream.queries.pop(int.from_bytes(datagram[:2]), None)
                ended = [] if quoted is None else [quoted]
            else:
                ended = list(upstream.queries.values())
                upstream.queries.clear()
            for query in ended:
                self._failed(query, number)
        # uvloop stops watching a socket after an error on it.
        if upstream in self._open:
            self._loop.remove_reader(upstream.sock.fileno())
            self._loop.add_reader(upstream.sock.fileno(), self._readable, upstream)
