"""What follows an upgrade or CONNECT in HTTP/1.1: counted and passed on as it is. Of a WebSocket the frames are read."""

from collections.abc import Callable

from weir_sidecar.core.request_log import field_of
from weir_sidecar.edge.http1_exchange import Exchange, message_version
from weir_sidecar.edge.relay_tls import TLSWay
from weir_sidecar.wire.http1 import AnswerHead


class Tunnel:
    """The rest of a connection, which belongs to the exchange that opened it."""

    __slots__ = ("_down", "_down_before", "_exchange", "_up", "_up_before")

    def __init__(self, exchange: Exchange, head: AnswerHead, up: TLSWay, down: TLSWay) -> None:
        """`head`: of the answer that opened it."""
        self._exchange = exchange
        self._up, self._down = up, down
        self._up_before, self._down_before = up.total, down.total
        fields = head.fields()
        if exchange.request.capture is not None:
            exchange.request.capture.replied(message_version(head.minor), fields)
        if head.status == 101 and field_of(fields, b"upgrade").lower() == b"websocket":
            websocket = exchange.request.upgraded(field_of(fields, b"sec-websocket-extensions"))
            up.on_bytes = _beside(websocket.from_client)
            down.on_bytes = _beside(websocket.from_server)

    def begin(self, early: bytes) -> None:
        """Go on with what the client sent before it had the answer."""
        if early:
            self._up.inject(early if self._up.on_bytes is None else self._up.on_bytes(early))
        self._up.go_on()

    def came_along(self, before: bytes, data: bytes, at: int) -> None:
        """`before`: what goes to the client up to the answer's head. With that came what is in `data` from `at` on."""
        self._down_before += len(before)
        websocket = self._exchange.request.websocket
        if websocket is not None:
            websocket.from_server(data, at, len(data))

    def close(self) -> None:
        """The connection has ended."""
        request = self._exchange.request
        request.request_bytes = self._up.total - self._up_before
        request.response_bytes = self._down.total - self._down_before
        request.finished(self._exchange.status)


def _beside(feed: Callable[[bytes, int, int], None]) -> Callable[[bytes], bytes]:
    """What passes on all it is given."""

    def read(data: bytes) -> bytes:
        feed(data, 0, len(data))
        return data

    return read
