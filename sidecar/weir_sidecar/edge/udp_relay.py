"""UDP that is not DNS: relayed when the policy allows it, refused with ICMP when it does not, and recorded either way.

A flow is all that passes between one client socket and one destination. Refused datagrams make a flow too, so that a
client that keeps trying costs one record in a few seconds and not one each.
"""

import asyncio
import errno
import socket
from collections import OrderedDict

from weir_sidecar.contract.flow import Client, Decision, FlowError, FlowRecord, Protocol, Reason
from weir_sidecar.core.verdict import FlowFacts, Verdict
from weir_sidecar.edge.context import EdgeContext
from weir_sidecar.edge.icmp import Sockaddr, Unreachable, connected, errors_of, upstream_error
from weir_sidecar.edge.reply_sockets import Replies, lost_by

IDLE = 60.0
IDLE_UNANSWERED = 10.0
"""Seconds without a datagram after which a flow has ended: later, and before the first answer."""
REFUSED_FOR = 5.0
"""Seconds of refused datagrams that one record tells."""
FLOWS = 4096
SWEEP = 1.0
BURST = 32

type _Key = tuple[Sockaddr, Sockaddr]


class _Flow:
    """One flow. `sock` is None while nothing can be sent upstream: refused, or no route."""

    __slots__ = (
        "client", "destination", "down", "error", "host", "id", "last", "sock", "started", "tell", "time", "uid", "up",
        "verdict",
    )  # fmt: skip

    def __init__(self, context: EdgeContext, key: _Key, verdict: Verdict | None) -> None:
        self.client, self.destination = key
        address, port = self.destination[:2]
        self.started = self.last = context.now()
        self.time = context.wall()
        self.id = context.new_id()
        self.uid = context.uid_of(self.client[:2], (address, port), socket.IPPROTO_UDP)
        self.host = context.names.name_of(address, self.started)
        self.verdict = verdict or context.decide(
            FlowFacts(protocol=Protocol.UDP, address=address, port=port, host=self.host, uid=self.uid)
        )
        self.sock: socket.socket | None = None
        self.tell = errno.ECONNREFUSED
        self.up = self.down = 0
        self.error: FlowError | None = None

    def ended(self, now: float) -> bool:
        """Whether the flow has been idle for long enough, or refused for long enough."""
        if self.sock is None:
            return now - self.started >= REFUSED_FOR
        return now - self.last >= (IDLE if self.down else IDLE_UNANSWERED)

    def record(self, now: float, error: FlowError | None) -> FlowRecord:
        """What there is to tell. Intercept of what has neither TLS nor HTTP is a passthrough."""
        intercepted = self.verdict.decision is Decision.INTERCEPT
        return FlowRecord(
            time=self.time,
            id=self.id,
            client=Client(uid=self.uid, address=self.client[0]),
            protocol=Protocol.UDP,
            host=self.host,
            sni=None,
            address=self.destination[0],
            port=self.destination[1],
            alpn=None,
            decision=Decision.PASSTHROUGH if intercepted else self.verdict.decision,
            reason=Reason.NOT_TLS_OR_HTTP if intercepted else self.verdict.reason,
            rule=self.verdict.rule,
            tls=None,
            bytes_up=self.up,
            bytes_down=self.down,
            duration_ms=round((now - self.started) * 1000, 3),
            error=error or self.error,
        )


class UDPRelay:
    """All UDP flows of the process, bounded; the longest idle goes first."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: EdgeContext,
        replies: Replies,
        unreachable: Unreachable,
        limit: int = FLOWS,
    ) -> None:
        self._loop = loop
        self._context = context
        self._replies = replies
        self._unreachable = unreachable
        self._limit = limit
        self._flows: OrderedDict[_Key, _Flow] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._buffer = bytearray(65536)
        self._view = memoryview(self._buffer)

    def receive(self, data: bytes, client: Sockaddr, destination: Sockaddr) -> None:
        """Relay one datagram, or refuse it, as the policy says."""
        key = (client, destination)
        flow = self._flows.get(key)
        if flow is None:
            flow = self._open(key, None)
            if flow.verdict.decision is not Decision.DENY:
                self._connect(flow)
        flow.up += len(data)
        if flow.sock is None:
            self._unreachable.send(client, destination, flow.tell, data)
            return
        flow.last = self._context.now()
        self._flows.move_to_end(key)
        try:
            flow.sock.send(data)
        except OSError as error:
            self._failed(flow, error)

    def refuse(
        self, data: bytes, client: Sockaddr, destination: Sockaddr, reason: Reason, *, tell: bool = True
    ) -> None:
        """Drop one datagram for `reason`, and `tell` its client that the port is unreachable."""
        key = (client, destination)
        flow = self._flows.get(key)
        if flow is None:
            flow = self._open(key, Verdict(Decision.DENY, reason))
        flow.up += len(data)
        if tell:
            self._unreachable.send(client, destination, errno.ECONNREFUSED, data)

    def close(self) -> None:
        """End all flows, each with its record."""
        for flow in list(self._flows.values()):
            self._end(flow, FlowError.PROXY_STOPPING)
        if self._timer is not None:
            self._timer.cancel()

    def _open(self, key: _Key, verdict: Verdict | None) -> _Flow:
        if len(self._flows) >= self._limit:
            self._end(next(iter(self._flows.values())), FlowError.OVERLOADED)
        flow = self._flows[key] = _Flow(self._context, key, verdict)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP, self._sweep)
        return flow

    def _connect(self, flow: _Flow) -> None:
        try:
            flow.sock = connected(flow.destination)
        except OSError as error:
            flow.tell = error.errno or errno.EHOSTUNREACH
            flow.error = upstream_error(flow.tell)
            return
        self._loop.add_reader(flow.sock.fileno(), self._readable, flow)

    def _readable(self, flow: _Flow) -> None:
        sock = flow.sock
        if sock is None:
            return
        for _ in range(BURST):
            try:
                size = sock.recv_into(self._buffer)
            except OSError as error:
                self._failed(flow, error)
                return
            flow.down += size
            flow.last = self._context.now()
            if lost := self._replies.send(bytes(self._view[:size]), flow.client, flow.destination):
                flow.error = lost_by(lost)

    def _failed(self, flow: _Flow, error: OSError) -> None:
        """Nothing to read or no room to write loses nothing more than a network would; ICMP is passed on."""
        if isinstance(error, BlockingIOError) or flow.sock is None:
            return
        flow.error = upstream_error(error.errno or 0)
        for number, datagram in errors_of(flow.sock):
            self._unreachable.send(flow.client, flow.destination, number, datagram)
        # uvloop stops watching a socket after an error on it.
        fd = flow.sock.fileno()
        self._loop.remove_reader(fd)
        self._loop.add_reader(fd, self._readable, flow)

    def _end(self, flow: _Flow, error: FlowError | None = None) -> None:
        del self._flows[(flow.client, flow.destination)]
        if flow.sock is not None:
            self._loop.remove_reader(flow.sock.fileno())
            flow.sock.close()
            flow.sock = None
        self._context.record(flow.record(self._context.now(), error))

    def _sweep(self) -> None:
        now = self._context.now()
        for flow in [flow for flow in self._flows.values() if flow.ended(now)]:
            self._end(flow)
        self._timer = self._loop.call_later(SWEEP, self._sweep) if self._flows else None
