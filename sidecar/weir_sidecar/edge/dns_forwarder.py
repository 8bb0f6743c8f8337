"""DNS over UDP: each query decided, forwarded or denied, and answered from the address that was asked.

No task and no timer per query: one table, in the order in which queries time out, and one timer while it is not empty.
"""

import asyncio
import errno
import os
from collections import OrderedDict
from collections.abc import Callable

from weir_sidecar.contract.flow import FlowError
from weir_sidecar.core.dns_cache import DNSCache
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
from weir_sidecar.edge.dns_upstream import DNSUpstreams, UpstreamSocket
from weir_sidecar.edge.icmp import Sockaddr, Unreachable, upstream_error
from weir_sidecar.edge.reply_sockets import Replies, lost_by

PENDING = 8192
SWEEP = 1.0
_DRAIN_LOOK = 0.02

type _Key = tuple[Sockaddr, Sockaddr, bytes]
"""Client, destination and the query itself: the same once more is a retransmission."""


class DNSForwarder:
    """All DNS queries over UDP that wait for an answer, bounded; the oldest goes first."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: EdgeContext,
        replies: Replies,
        unreachable: Unreachable,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._loop = loop
        self._context = context
        self._replies = replies
        self._unreachable = unreachable
        self._upstreams = DNSUpstreams(loop, self._answered, self._failed, random)
        self._pending: OrderedDict[_Key, tuple[DNSQuery, UpstreamSocket]] = OrderedDict()
        self._cache = DNSCache()
        self._timer: asyncio.TimerHandle | None = None

    def receive(self, data: bytes, client: Sockaddr, destination: Sockaddr) -> None:
        """Take one query as `client` sent it to `destination`."""
        key = (client, destination, data)
        waiting = self._pending.get(key)
        if waiting is not None:
            self._repeat(key, *waiting)
            return
        query = admit(self._context, data, client, destination, stream=False)
        if query is None:
            return
        answer = denial(self._context, query)
        if answer is not None:
            self._reply(query, answer)
        elif not self._from_cache(query):
            self._forward(key, query)

    async def drain(self, seconds: float) -> None:
        """Give the queries under way `seconds` to be answered."""
        until = self._loop.time() + seconds
        while self._pending and self._loop.time() < until:  # noqa: ASYNC110  (once; an event would cost every query)
            await asyncio.sleep(_DRAIN_LOOK)

    def close(self) -> None:
        """End all queries, each with its record."""
        for query, _ in list(self._pending.values()):
            self._end(query, FlowError.PROXY_STOPPING)
        self._upstreams.close()
        if self._timer is not None:
            self._timer.cancel()

    def _forward(self, key: _Key, query: DNSQuery) -> None:
        if len(self._pending) >= PENDING:
            self._end(next(iter(self._pending.values()))[0], FlowError.OVERLOADED)
        try:
            server = server_of(self._context.config, query.destination)
            self._pending[key] = query, self._upstreams.send(query, server, query.started)
        except OSError as error:
            self._refused(query, error.errno or errno.ENETUNREACH)
            return
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP, self._sweep)

    def _repeat(self, key: _Key, query: DNSQuery, upstream: UpstreamSocket) -> None:
        query.up += len(query.data)
        query.deadline = self._context.now() + TIMEOUT
        self._pending.move_to_end(key)
        self._upstreams.repeat(query, upstream)

    def _answered(self, query: DNSQuery, data: bytes) -> bool:
        """Take what came under the query's id; whether it was the answer."""
        if not answers(query, data):
            return False
        del self._pending[(query.client, query.destination, query.data)]
        if self._context.config.capture.dns.cache and query.question is not None:
            self._cache.put(self._scope(query), query.data, query.question, data, self._context.now())
        self._deliver(query, data)
        return True

    def _deliver(self, query: DNSQuery, data: bytes) -> None:
        answer = deliver(self._context, query, data)
        if answer is None:
            close(self._context, query, FlowError.UPSTREAM_ANSWER_MALFORMED)
        else:
            self._reply(query, answer)

    def _reply(self, query: DNSQuery, answer: bytes) -> None:
        lost = self._replies.send(answer, query.client, query.destination)
        if lost == errno.EHOSTDOWN:
            # Without a word the client would wait for seconds before it asks another server.
            self._unreachable.send(query.client, query.destination, errno.ECONNREFUSED, query.data)
        close(self._context, query, lost_by(lost))

    def _from_cache(self, query: DNSQuery) -> bool:
        if not self._context.config.capture.dns.cache or query.question is None:
            return False
        data = self._cache.get(self._scope(query), query.data, query.question, query.started)
        if data is None:
            return False
        self._deliver(query, data)
        return True

    def _scope(self, query: DNSQuery) -> Sockaddr:
        return server_of(self._context.config, query.destination)

    def _failed(self, query: DNSQuery, number: int) -> None:
        """ICMP ended a query that was under way."""
        del self._pending[(query.client, query.destination, query.data)]
        self._refused(query, number)

    def _refused(self, query: DNSQuery, number: int) -> None:
        self._unreachable.send(query.client, query.destination, number, query.data)
        close(self._context, query, upstream_error(number))

    def _end(self, query: DNSQuery, error: FlowError) -> None:
        _, upstream = self._pending.pop((query.client, query.destination, query.data))
        self._upstreams.forget(query, upstream)
        close(self._context, query, error)

    def _sweep(self) -> None:
        now = self._context.now()
        while self._pending:
            query, _ = next(iter(self._pending.values()))
            if query.deadline > now:
                break
            self._end(query, FlowError.UPSTREAM_TIMED_OUT)
        sockets = self._upstreams.sweep(now)
        self._timer = self._loop.call_later(SWEEP, self._sweep) if sockets or self._pending else None
