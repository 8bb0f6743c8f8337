"""Tells by a decrypted flow's first bytes whether it is HTTP, and which, where ALPN has not said so."""

import asyncio

from weir_sidecar.contract.flow import FlowError
from weir_sidecar.contract.request import RequestError
from weir_sidecar.edge.relay_http1 import HTTP1Relay
from weir_sidecar.edge.relay_http2 import HTTP2Reader
from weir_sidecar.edge.relay_tls import TLSWay
from weir_sidecar.edge.requests import FlowRequests
from weir_sidecar.wire.sniff import Kind, sniff

_UNSURE_SECONDS = 0.1
"""How long first bytes that might still become a request are waited for."""


class FirstBytes:
    """Reads what two ways move until it is known who has to. Call `attach`, then run the relay, then `close`."""

    __slots__ = ("_down", "_held", "_loop", "_passing", "_reader", "_requests", "_server_spoke", "_timer", "_up")

    def __init__(self, loop: asyncio.AbstractEventLoop, requests: FlowRequests) -> None:
        self._loop = loop
        self._requests = requests
        self._held = bytearray()
        self._passing = False
        """What is not known to be HTTP is passed on, and may yet turn out to be it."""
        self._server_spoke = False
        self._reader: HTTP1Relay | HTTP2Reader | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._up: TLSWay
        self._down: TLSWay

    @property
    def error(self) -> FlowError | None:
        """Who broke the connection by what could not be passed on, if anybody did."""
        return self._reader.error if isinstance(self._reader, HTTP2Reader) else None

    def attach(self, up: TLSWay, down: TLSWay) -> None:
        """Read what these two move."""
        self._up, self._down = up, down
        up.on_bytes, up.on_end = self._from_client, self._client_ended
        down.on_bytes = self._from_upstream

    def close(self, error: RequestError) -> None:
        """The relay has ended; `error` is what became of requests without their answer."""
        if self._timer is not None:
            self._timer.cancel()
        if self._reader is not None:
            self._reader.close(error)
        self._leave_unread()
        # Each knows the other: without this their memory would wait for the garbage collector.
        del self._up, self._down

    def _from_upstream(self, data: bytes) -> bytes:
        self._server_spoke = True
        return data

    def _from_client(self, data: bytes) -> bytes:
        self._held += data
        kind = sniff(memoryview(self._held))
        if kind is Kind.NEED_MORE:
            return self._need_more(data)
        if self._timer is not None:
            self._timer.cancel()
        if self._passing:
            return self._known_too_late(kind, data)
        data = bytes(self._held)
        if kind is Kind.HTTP2 and not self._server_spoke:
            return self._hand_over(HTTP2Reader(self._loop, self._requests), data)
        if kind is Kind.HTTP1 or (kind is Kind.OPAQUE and self._requests.must_be_http):
            return self._hand_over(HTTP1Relay(self._loop, self._requests), data)
        return self._known_too_late(kind, data)

    def _hand_over(self, reader: HTTP1Relay | HTTP2Reader, data: bytes) -> bytes:
        self._leave_unread()
        self._reader = reader
        reader.attach(self._up, self._down)
        assert self._up.on_bytes is not None
        return self._up.on_bytes(data)

    def _known_too_late(self, kind: Kind, data: bytes) -> bytes:
        """It is not HTTP; or it is, and its beginning has passed unread."""
        if kind in {Kind.HTTP1, Kind.HTTP2} and self._requests.governs:
            self._up.abort()
            return b""
        self._leave_unread()
        return data

    def _need_more(self, data: bytes) -> bytes:
        if self._passing:
            return data
        if self._timer is None:
            self._timer = self._loop.call_later(_UNSURE_SECONDS, self._unsure)
        return b""

    def _unsure(self) -> None:
        """A client of another protocol may have said all that it will say before the server answers."""
        if self._requests.must_be_http:
            return
        self._passing = True
        if not self._requests.governs:
            self._leave_unread()
        self._up.inject(bytes(self._held))

    def _client_ended(self) -> bytes:
        return b"" if self._passing or self._requests.must_be_http else bytes(self._held)

    def _leave_unread(self) -> None:
        self._up.on_bytes = self._up.on_end = self._down.on_bytes = self._down.on_end = None
