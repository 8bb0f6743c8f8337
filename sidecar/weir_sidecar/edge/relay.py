"""Relays: two ways of bytes between a client and its upstream, each ended on its own (half-close), both ended together.

A relay is chosen for each protocol. `Relay` is the life they share; a *way* is one direction of it: `raw.RawWay` moves
bytes unread, by splice in the kernel where it pays; `tls.TLSWay` moves decrypted bytes from one TLS session to the other;
`plain.PlainWay` moves HTTP in the clear.
"""

import asyncio
import struct
from collections.abc import Callable
from enum import StrEnum
from socket import SO_LINGER, SOL_SOCKET, socket
from typing import Protocol

import msgspec

from weir_sidecar.contract.flow import FlowError
from weir_sidecar.edge.tls_session import End

_LINGER_RESET = struct.pack("ii", 1, 0)


class Side(StrEnum):
    """The two ends of a flow."""

    CLIENT = "client"
    UPSTREAM = "upstream"

    @property
    def other(self) -> "Side":
        """The end across."""
        return Side.UPSTREAM if self is Side.CLIENT else Side.CLIENT


class RelayEnd(msgspec.Struct, frozen=True):
    """How a relay ended: bytes of the application in both ways, who ended first, and how."""

    bytes_up: int
    bytes_down: int
    first: Side
    end: End


class Way(Protocol):
    """One direction of a relay."""

    source_side: Side
    total: int
    """Bytes moved."""

    def start(self, relay: "Relay") -> None:
        """Begin to move bytes; tell `relay` when this way has ended."""

    def stop(self) -> None:
        """Take every registration out of the event loop."""


class Relay:
    """Runs two ways until both have ended or either failed. `on_end` is called once."""

    __slots__ = ("_client", "_down", "_ended", "_first", "_on_end", "_up", "_upstream")

    def __init__(
        self, client: socket, upstream: socket, up: Way, down: Way, on_end: Callable[[RelayEnd], None]
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._up = up
        self._down = down
        self._on_end = on_end
        self._first: tuple[Side, End] | None = None
        self._ended = 0

    def start(self) -> None:
        """Begin."""
        up, down = self._up, self._down
        down.start(self)
        if self._ended <= 2:  # it may have found an end gone
            up.start(self)

    def source_ended(self, way: Way, end: End) -> None:
        """`way` has no more to move and has told its sink so."""
        if self._first is None:
            self._first = (way.source_side, end)
        self._ended += 1
        if self._ended == 2:
            self._finish()

    def failed(self, side: Side, end: End) -> None:
        """`side` is gone: the other end is told with a reset, as it would have been told without us."""
        if self._ended > 2:
            return
        if self._first is None:
            self._first = (side, end)
        reset_on_close(self._client)
        reset_on_close(self._upstream)
        self._finish()

    def abort(self, end: End) -> None:
        """End it from our side."""
        self.failed(Side.UPSTREAM, end)

    def _finish(self) -> None:
        self._ended = 3
        up, down = self._up, self._down
        # The ways know the relay: without this, each flow's memory would wait for the garbage collector.
        del self._up, self._down
        up.stop()
        down.stop()
        self._client.close()
        self._upstream.close()
        side, end = self._first or (Side.UPSTREAM, End.RESET)
        self._on_end(RelayEnd(up.total, down.total, side, end))


def reset_error(end: RelayEnd) -> FlowError | None:
    """The error of a relay whose first end was a reset."""
    if end.end is not End.RESET:
        return None
    return FlowError.CLIENT_RESET if end.first is Side.CLIENT else FlowError.UPSTREAM_RESET


def reset_on_close(sock: socket) -> None:
    """Let `close` send a reset instead of a FIN (socket(7), SO_LINGER of zero). A socket that is closed stays so."""
    if sock.fileno() >= 0:
        sock.setsockopt(SOL_SOCKET, SO_LINGER, _LINGER_RESET)


async def run(loop: asyncio.AbstractEventLoop, client: socket, upstream: socket, up: Way, down: Way) -> RelayEnd:
    """Run a relay to its end. Cancelling it resets both sides."""
    future: asyncio.Future[RelayEnd] = loop.create_future()
    relay = Relay(client, upstream, up, down, lambda end: _resolve(future, end))
    relay.start()
    try:
        return await future
    except asyncio.CancelledError:
        relay.abort(End.RESET)
        raise


def _resolve(future: "asyncio.Future[RelayEnd]", end: RelayEnd) -> None:
    if not future.done():
        future.set_result(end)
