"""Reads HTTP/2 where a relay's bytes pass, with and without TLS: the sockets' side of `core.http2_relay`."""

import asyncio
from collections.abc import Callable

from weir_sidecar.contract.flow import FlowError
from weir_sidecar.contract.request import HTTPVersion, RequestError
from weir_sidecar.core.http2_relay import HTTP2Relay
from weir_sidecar.edge.relay_tls import TLSWay
from weir_sidecar.edge.requests import FlowRequests

_LAST_WORD_SECONDS = 2.0
_MAX_BACKLOG = 262144
"""Bytes of our own answers for a client that does not read them."""


class HTTP2Reader:
    """Reads what two ways move. Call `attach`, then run the relay, then `close`."""

    __slots__ = ("_down", "_loop", "_reads_client", "_reads_upstream", "_relay", "_timers", "_up", "error")

    def __init__(self, loop: asyncio.AbstractEventLoop, requests: FlowRequests) -> None:
        requests.version = HTTPVersion.HTTP2
        self._loop = loop
        self._relay = HTTP2Relay(requests, self._after, self._wake)
        self._reads_client = self._reads_upstream = True
        self._timers: set[asyncio.TimerHandle] = set()
        self.error: FlowError | None = None
        """Who broke the connection by what could not be passed on, if anybody did."""
        self._up: TLSWay
        self._down: TLSWay

    def attach(self, up: TLSWay, down: TLSWay) -> None:
        """Read what these two move."""
        self._up, self._down = up, down
        up.gathers = down.gathers = True
        up.on_bytes = self._from_client
        down.on_bytes = self._from_upstream

    def close(self, error: RequestError) -> None:
        """The relay has ended; `error` is what became of requests that have not."""
        for timer in self._timers:
            timer.cancel()
        self._relay.close(error)
        # Each knows the other: without this their memory would wait for the garbage collector.
        self._up.on_bytes = self._down.on_bytes = None
        del self._up, self._down, self._relay

    def _from_client(self, data: bytes) -> bytes:
        relay = self._relay
        relay.from_client(data)
        passed = relay.for_upstream()
        back = relay.for_client()
        if back:
            self._down.inject(back)
            if self._down.backlog > _MAX_BACKLOG:
                self._down.abort()
        self._balance()
        if relay.failed is not None and self.error is None:
            self._fail()
            self._down.finish()
        return passed

    def _from_upstream(self, data: bytes) -> bytes:
        relay = self._relay
        relay.from_upstream(data)
        passed = relay.for_client()
        back = relay.for_upstream()
        if back:
            self._up.inject(back)
        self._balance()
        if relay.failed is not None and self.error is None:
            self._fail()
            self._down.finish_after_this()
        return passed

    def _fail(self) -> None:
        """The client has our last word; what it still sends is read, since unread it would reset that away."""
        self.error = FlowError.CLIENT_HTTP_MALFORMED if self._relay.client_failed else FlowError.UPSTREAM_HTTP_MALFORMED
        self._after(_LAST_WORD_SECONDS, self._up.abort)

    def _wake(self) -> None:
        relay = self._relay
        up, down = relay.for_upstream(), relay.for_client()
        if up:
            self._up.inject(up)
        if down:
            self._down.inject(down)
        self._balance()

    def _balance(self) -> None:
        """Read of each side what the relay has room for."""
        relay = self._relay
        if relay.reads_client is not self._reads_client:
            self._reads_client = relay.reads_client
            self._up.go_on() if self._reads_client else self._up.pause()
        if relay.reads_upstream is not self._reads_upstream:
            self._reads_upstream = relay.reads_upstream
            self._down.go_on() if self._reads_upstream else self._down.pause()

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            call()

        timer = self._loop.call_later(seconds, run)
        self._timers.add(timer)
