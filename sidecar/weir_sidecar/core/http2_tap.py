"""The content of one stream's DATA, for who captures it, or reads it as a WebSocket (RFC 8441). Most streams have none."""

from collections.abc import Callable

from weir_sidecar.contract.request import MessageVersion
from weir_sidecar.core.request_capture import RequestCapture
from weir_sidecar.core.request_log import field_of
from weir_sidecar.core.websocket import WebSocket
from weir_sidecar.wire.hpack import Block
from weir_sidecar.wire.http2 import Piece, payloads

type _Sink = Callable[[bytes, int, int], None]


class StreamTap:
    """What is given one stream's DATA."""

    __slots__ = ("_asks_websocket", "_capture", "_down", "_up")

    def __init__(self, capture: RequestCapture | None, *, asks_websocket: bool) -> None:
        """`asks_websocket`: the request would become one."""
        self._capture = capture
        self._asks_websocket = asks_websocket
        self._up = _Content(None if capture is None else capture.request.sink)
        self._down = _Content(None)

    def replied(self, upgraded: Callable[[bytes], WebSocket], status: int, block: Block) -> None:
        """The final answer's head is there. `upgraded` makes the WebSocket, of the extensions that were agreed on."""
        fields = [field for field in block.fields if field[0][:1] != b":"]
        if self._capture is not None:
            self._down.sink = self._capture.replied(MessageVersion.HTTP2, fields)
        if self._asks_websocket and 200 <= status < 300:
            websocket = upgraded(field_of(fields, b"sec-websocket-extensions"))
            self._up.sink, self._down.sink = websocket.from_client, websocket.from_server

    def up(self, buffer: bytes, piece: Piece) -> None:
        """DATA of the client."""
        self._up.take(buffer, piece)

    def down(self, buffer: bytes, piece: Piece) -> None:
        """DATA of the upstream."""
        self._down.take(buffer, piece)


class _Content:
    """One direction: takes frames and their padding off."""

    __slots__ = ("_left", "sink")

    def __init__(self, sink: _Sink | None) -> None:
        self.sink = sink
        self._left = 0
        """Bytes of the frame's content that are still to come."""

    def take(self, buffer: bytes, piece: Piece) -> None:
        """A part of a frame; or several frames, which have no padding then."""
        self._left += piece.begun - piece.padding
        before = 1 if piece.padding and piece.begun else 0  # the length of the padding
        for at, to in payloads(buffer, piece):
            start = at + before
            end = min(start + self._left, to)
            self._left -= max(0, end - start)
            if self.sink is not None and start < end:
                self.sink(buffer, start, end)
