"""What a new TCP connection is, before anything of it is consumed: its first bytes are peeked at, never read.

While the client is silent the upstream may be connected already (where the policy lets through what says nothing more):
so a server that speaks first is heard at once.
"""

import asyncio
from enum import Enum
from socket import MSG_PEEK, SO_RCVLOWAT, SOL_SOCKET, socket

import msgspec

from weir_sidecar.edge.dial import Dial, DialError
from weir_sidecar.edge.waiting import Readers, has_hung_up
from weir_sidecar.wire.clienthello import ClientHello, MalformedClientHello, NeedMore, parse
from weir_sidecar.wire.http2 import begins_http2
from weir_sidecar.wire.sniff import Kind, http1_host, sniff

_FIRST_PEEK = 4096

_UNSURE_SECONDS = 0.1
"""How long bytes that might still become an HTTP request are waited for, where the policy would let them through unread
too: a client of another protocol may have said all it will say before the server answers."""


class Opening(Enum):
    """How a connection began."""

    TLS = "tls"
    HTTP = "http"
    HTTP2 = "http2"
    """With prior knowledge: the preface, in the clear."""
    OPAQUE = "opaque"
    UNREADABLE_HELLO = "unreadable_hello"
    SERVER_FIRST = "server_first"
    SILENT = "silent"
    """The client closed its half without a byte; or it may not be connected, and has said nothing for too long."""


class Peeked(msgspec.Struct, frozen=True):
    """What the first bytes say."""

    opening: Opening
    hello: ClientHello | None = None
    host: str | None = None


def classify(data: bytes, *, final: bool) -> Peeked | int:
    """What `data`, the first bytes of a connection, are; or how many are needed to say. `final`: no more will come."""
    match sniff(data):
        case Kind.TLS:
            return _classify_tls(data, final=final)
        case Kind.HTTP1:
            host = http1_host(data)
            if isinstance(host, NeedMore):
                return Peeked(Opening.HTTP) if final else host.total
            return Peeked(Opening.HTTP, host=host)
        case Kind.HTTP2:
            return Peeked(Opening.HTTP2)
        case Kind.NEED_MORE if not final:
            return len(data) + 1
        case _:
            return Peeked(Opening.OPAQUE)


def _classify_tls(data: bytes, *, final: bool) -> Peeked | int:
    try:
        hello = parse(data)
    except MalformedClientHello:
        return Peeked(Opening.UNREADABLE_HELLO)
    if isinstance(hello, NeedMore):
        return Peeked(Opening.UNREADABLE_HELLO) if final else hello.total
    return Peeked(Opening.TLS, hello=hello)


class Peeker:
    """Watches one new connection until it can be told what it is. `readers` are to be released or handed over after it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: socket, limit: int, timeout: float) -> None:
        """`limit` bytes and `timeout` seconds are the most that an unfinished beginning may take."""
        self._loop = loop
        self._client = client
        self._limit = limit
        self._timeout = timeout
        self._wanted = 1
        self._unsure = False
        self._awaits_preface = False
        self._begun: float | None = None
        self.readers = Readers(loop)
        self._deadline: float | None = None

    async def peek(self, dial: Dial | None, patience: float | None) -> Peeked | None:
        """Wait for the first bytes of either side. None: `patience` seconds have passed in silence.

        Raises `ConnectionError` where the client is gone, and `DialError` where the upstream cannot be reached.
        """
        while True:
            peeked = self._look(final=False)
            if isinstance(peeked, Peeked):
                return self._settled(peeked)
            if peeked:
                self._ask_for(peeked, _UNSURE_SECONDS if dial is not None and self._unsure else self._timeout)
            fds = [self._client.fileno()]
            if dial is not None and dial.connected and self._hears_server():
                fds.append(dial.sock.fileno())
            writable = dial.sock.fileno() if dial is not None and not dial.connected else None
            limit = patience if self._deadline is None else self._deadline - self._loop.time()
            ready = await self.readers.wait(fds, writable, limit)
            if ready is None:
                return self._settled(self._final()) if self._deadline is not None else None
            if dial is not None and ready == dial.sock.fileno():
                if dial.connected and not self._is_http2(dial.sock):
                    return self._settled(Peeked(Opening.SERVER_FIRST))
                dial.check()
            elif self._deadline is not None and not isinstance(self._look(final=False), Peeked) and self._ended():
                return self._settled(self._final())

    def _is_http2(self, upstream: socket) -> bool:
        """Whether the server speaks first because either side of HTTP/2 may (RFC 9113, section 3.4): the client must, too."""
        try:
            self._awaits_preface = begins_http2(upstream.recv(_FIRST_PEEK, MSG_PEEK))
        except BlockingIOError:
            return False
        except OSError as cause:  # a socket tells of a reset once, and this was it
            raise DialError(cause) from cause
        if self._awaits_preface:
            self._deadline = self._loop.time() + self._timeout
            self.readers.release()  # what the server said stays readable, and would wake nobody else
        return self._awaits_preface

    def _hears_server(self) -> bool:
        return not self._awaits_preface and (self._begun is None or self._unsure)

    def _look(self, *, final: bool) -> Peeked | int:
        try:
            data = self._client.recv(max(self._wanted, _FIRST_PEEK), MSG_PEEK)
        except BlockingIOError:
            return Peeked(Opening.OPAQUE) if final else 0
        if not data:
            return Peeked(Opening.SILENT)
        needed = classify(data, final=final)
        self._unsure = sniff(data) is Kind.NEED_MORE
        if isinstance(needed, int) and needed > self._limit:
            needed = classify(data, final=True)
        return needed

    def _final(self) -> Peeked:
        if self._awaits_preface and self._begun is None:
            return Peeked(Opening.SERVER_FIRST)
        peeked = self._look(final=True)
        assert isinstance(peeked, Peeked)
        return peeked

    def _ask_for(self, total: int, patience: float) -> None:
        """Wake only when `total` bytes are there (tcp(7), SO_RCVLOWAT): peeked bytes stay readable, and would spin.

        `patience` counts from the first byte on.
        """
        if self._begun is None:
            self._begun = self._loop.time()
        self._deadline = self._begun + patience
        if total != self._wanted:
            self._wanted = total
            self._client.setsockopt(SOL_SOCKET, SO_RCVLOWAT, total)

    def _ended(self) -> bool:
        """With less than was asked for: the client has closed its half, and no more will come."""
        return has_hung_up(self._client) and len(self._client.recv(self._wanted, MSG_PEEK)) < self._wanted

    def _settled(self, peeked: Peeked) -> Peeked:
        if self._wanted != 1:
            self._client.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 1)
        return peeked
