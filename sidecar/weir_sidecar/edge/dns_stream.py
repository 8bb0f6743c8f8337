"""DNS over TCP (RFC 7766): each message framed, decided and recorded as over UDP; pipelined; answers in any order.

One upstream connection for one client connection, opened with the first query that is forwarded. What the upstream
does to it is done to the client: refused or reset is a reset, closed is closed once the answers are delivered. A client
that has sent all its queries and closed its half still gets its answers.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable

from weir_sidecar.contract.flow import Decision, FlowError, Reason
from weir_sidecar.core.verdict import Verdict
from weir_sidecar.edge.context import EdgeContext
from weir_sidecar.edge.dns_query import (
    TIMEOUT,
    DNSQuery,
    admit,
    answers,
    close,
    deliver,
    denial,
    server_of,
)
from weir_sidecar.edge.framed import FramedSocket
from weir_sidecar.edge.icmp import Sockaddr, family_of, upstream_error

IDLE = 30.0
"""Seconds without a query under way after which a connection is closed."""
CONNECTIONS = 1024
QUERIES = 128
"""Queries under way on one connection; no more are read until some are answered."""
SWEEP = 1.0

_GONE = Verdict(Decision.PASSTHROUGH, Reason.CLIENT_GONE)
_SILENT = Verdict(Decision.PASSTHROUGH, Reason.CLIENT_SILENT)
_OVERLOADED = Verdict(Decision.DENY, Reason.OVERLOADED)
_STOPPING = Verdict(Decision.DENY, Reason.PROXY_STOPPING)


class DNSStreams:
    """All DNS connections of the process, bounded; one timer while there are any."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: EdgeContext, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self.loop = loop
        self.context = context
        self.random = random
        self._connections: set[_Connection] = set()
        self._timer: asyncio.TimerHandle | None = None

    def serve(self, sock: socket.socket, client: Sockaddr, destination: Sockaddr) -> None:
        """Take over an accepted, non-blocking connection that was meant for `destination`."""
        connection = _Connection(self, sock, client, destination)
        self._connections.add(connection)
        if len(self._connections) > CONNECTIONS:
            connection.end(FlowError.OVERLOADED, _OVERLOADED, reset=True)
        elif self._timer is None:
            self._timer = self.loop.call_later(SWEEP, self._sweep)

    def ended(self, connection: "_Connection") -> None:
        """Told by a connection when it is closed."""
        self._connections.discard(connection)

    def close(self) -> None:
        """End all connections, and their queries with a record each."""
        for connection in list(self._connections):
            connection.end(FlowError.PROXY_STOPPING, _STOPPING, reset=True)
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        now = self.context.now()
        for connection in list(self._connections):
            connection.expire(now)
        self._timer = self.loop.call_later(SWEEP, self._sweep) if self._connections else None


class _Connection:
    """One client connection, its upstream, and the queries under way by their id upstream."""

    def __init__(self, streams: DNSStreams, sock: socket.socket, client: Sockaddr, destination: Sockaddr) -> None:
        self._streams = streams
        self._context = streams.context
        self._address = client
        self._destination = destination
        self._queries: dict[int, DNSQuery] = {}
        connection = DNSQuery(self._context, b"", client, destination, None, stream=True)
        self._active = connection.started
        # Tells of a connection on which no query comes.
        self._unasked: DNSQuery | None = connection
        self._client_done = self._upstream_done = False
        self._upstream: FramedSocket | None = None
        self._client = FramedSocket(streams.loop, sock, self._query, self._client_ended, self._advance)

    def end(self, error: FlowError | None, unasked: Verdict = _GONE, *, reset: bool = False) -> None:
        """Close both sides, the client's with a reset if told so; what was under way is recorded with `error`."""
        if self._client.closed:
            return
        if reset:
            self._client.abort()
        self._client.close()
        if self._upstream is not None:
            self._upstream.close()
        for query in self._queries.values():
            close(self._context, query, None if query.transfer and query.down else error)
        self._queries.clear()
        if self._unasked is not None:
            self._unasked.verdict = unasked
            close(self._context, self._unasked, error)
        self._streams.ended(self)

    def expire(self, now: float) -> None:
        """Record the queries that nobody answered in time; close a connection on which nothing happens."""
        for query in [query for query in self._queries.values() if query.deadline <= now]:
            self._answered(query, FlowError.UPSTREAM_TIMED_OUT)
        if self._queries or now - self._active < IDLE:
            self._advance()
        else:
            self.end(None, _SILENT)

    def _query(self, data: bytes) -> None:
        """One message from the client."""
        self._unasked = None
        self._active = self._context.now()
        query = admit(self._context, data, self._address, self._destination, stream=True)
        if query is None:
            self.end(FlowError.CLIENT_RESET, reset=True)
            return
        answer = denial(self._context, query)
        if answer is None:
            self._forward(query)
        else:
            close(self._context, query)
            self._client.send(answer)
        self._advance()

    def _forward(self, query: DNSQuery) -> None:
        number = int.from_bytes(self._streams.random(2))
        while number in self._queries:
            number = (number + 1) & 0xFFFF
        query.upstream_id = number
        self._queries[number] = query
        if self._upstream is None:
            self._upstream = self._connect()
        if self._upstream is not None:
            self._upstream.send(number.to_bytes(2) + query.data[2:])

    def _connect(self) -> FramedSocket | None:
        server = server_of(self._context.config, self._destination)
        sock = socket.socket(family_of(server), socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        code = sock.connect_ex(server)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            self._upstream_ended(code)
            return None
        return FramedSocket(
            self._streams.loop, sock, self._answer, self._upstream_ended, self._advance, connecting=True
        )

    def _answer(self, data: bytes) -> None:
        """One message from the upstream; what answers no query of ours is dropped."""
        query = self._queries.get(int.from_bytes(data[:2]))
        if query is None or not answers(query, data):
            return
        self._active = self._context.now()
        answer = deliver(self._context, query, data)
        if answer is not None:
            self._client.send(answer)
        if query.transfer:
            query.deadline = self._active + TIMEOUT
        else:
            self._answered(query, None if answer is not None else FlowError.UPSTREAM_ANSWER_MALFORMED)
        self._advance()

    def _answered(self, query: DNSQuery, error: FlowError | None) -> None:
        del self._queries[query.upstream_id]
        close(self._context, query, None if query.transfer and query.down else error)

    def _client_ended(self, error: int) -> None:
        if error:
            self.end(FlowError.CLIENT_RESET)
        elif self._client.partial:
            self._unasked = None
            cut = DNSQuery(self._context, self._client.partial, self._address, self._destination, None, stream=True)
            close(self._context, cut)
            self.end(FlowError.CLIENT_RESET, reset=True)
        else:
            self._client_done = True
            self._advance()

    def _upstream_ended(self, error: int) -> None:
        if error:
            self.end(upstream_error(error), reset=True)
        else:
            self._upstream_done = True
            self._advance()

    def _advance(self) -> None:
        """Read from each side only while what it sends can go somewhere, and close when all is done."""
        upstream = self._upstream
        if self._upstream_done or (self._client_done and not self._queries):
            if not self._client.unsent:
                self.end(FlowError.UPSTREAM_RESET if self._queries else None)
            return
        behind = upstream is not None and upstream.full
        self._client.pause(len(self._queries) >= QUERIES or behind or self._client.full)
        if upstream is not None:
            upstream.pause(self._client.full)
