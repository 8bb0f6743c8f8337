"""Tells by a decrypted flow's first bytes whether it is HTTP, where ALPN has not said so."""

import asyncio
from typing import Protocol

from weir_sidecar.edge.requests import FlowRequests
from weir_sidecar.wire.sniff import Kind, sniff

_UNSURE_SECONDS = 0.1
"""How long first bytes that might still become a request are waited for."""


class Reader(Protocol):
    """Whom it tells."""

    def is_http(self, data: bytes) -> bytes:
        """It is HTTP/1.1: what of `data`, its first bytes, is passed on."""

    def leave_unread(self) -> None:
        """It is not."""

    def pass_on(self, data: bytes) -> None:
        """Send the upstream what was held back."""

    def end_all(self) -> None:
        """It must not go on."""


class FirstBytes:
    """Reads the client's first bytes until it is known what they are. `close` it in any case."""

    __slots__ = ("_held", "_loop", "_passing", "_reader", "_requests", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, requests: FlowRequests, reader: Reader) -> None:
        self._loop = loop
        self._requests = requests
        self._reader = reader
        self._held = bytearray()
        self._passing = False
        """What is not known to be HTTP is passed on, and may yet turn out to be it."""
        self._timer: asyncio.TimerHandle | None = None

    def read(self, data: bytes) -> bytes:
        """What of the bytes is passed on."""
        self._held += data
        kind = sniff(memoryview(self._held))
        if kind is Kind.NEED_MORE:
            return self._need_more(data)
        if self._timer is not None:
            self._timer.cancel()
        if not self._passing:
            data = bytes(self._held)
        governs, must_be_http = self._requests.governs, self._requests.must_be_http
        if not self._passing and (kind is Kind.HTTP1 or (must_be_http and kind is not Kind.HTTP2)):
            return self._reader.is_http(data)
        if kind is not Kind.OPAQUE and governs:  # too late to decide about it, or in a form that is not read here
            self._reader.end_all()
            return b""
        self._reader.leave_unread()
        return data

    def ended(self) -> bytes:
        """The client has ended: what was held back is passed on."""
        return b"" if self._passing or self._requests.must_be_http else bytes(self._held)

    def close(self) -> None:
        """No more comes."""
        if self._timer is not None:
            self._timer.cancel()

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
            self._reader.leave_unread()
        self._reader.pass_on(bytes(self._held))
