"""The parts of a relayed HTTP/2 connection: streams, those that wait or were refused, and the client's window."""

from collections.abc import Callable
from typing import Protocol

from weir_sidecar.contract.request import RequestError
from weir_sidecar.core.http2_tap import StreamTap
from weir_sidecar.core.http_policy import RequestFacts, RequestVerdict
from weir_sidecar.core.placeholders import BodyWatch
from weir_sidecar.core.websocket import WebSocket
from weir_sidecar.wire.http2 import DEFAULT_FRAME_SIZE, DEFAULT_WINDOW, ErrorCode, FrameError, HeaderBlock, Piece

MAX_OPEN_BYTES = 1 << 20
"""Of requests that are open at a time; more are refused, and clients try them again (RFC 9113, section 8.7)."""
_MAX_REFUSED = 4096
_STREAM_BYTES = 512
MAX_HELD_BYTES = 262144
"""Of frames that wait for a delayed request; then no more is read from the client."""

type After = Callable[[float, Callable[[], None]], object]
"""Calls something after so many seconds; nothing cancels it."""


def no_promise(_: Piece) -> bytes | None:
    """Only servers push (RFC 9113, section 8.4)."""
    raise FrameError(ErrorCode.PROTOCOL_ERROR, "a client promises a push")


class Request(Protocol):
    """One request as its policy and its record see it: `edge.requests.Request`."""

    verdict: RequestVerdict
    request_bytes: int
    response_bytes: int
    tap: StreamTap | None
    """Who is to be given the content of its DATA."""

    def asked(self) -> None:
        """The upstream was sent all of it."""

    def answered(self) -> None:
        """An answer begins."""

    def upgraded(self, extensions: bytes) -> WebSocket:
        """It has become a WebSocket, with these extensions."""

    def finished(self, status: int | None, error: RequestError | None = None) -> None:
        """It has ended; once."""


class Requests[R: Request](Protocol):
    """What decides about requests and records them: `edge.requests.FlowRequests`."""

    def started(self, number: int, facts: RequestFacts) -> R:
        """A request has begun; its verdict is in it."""

    def unreadable(self, number: int, error: RequestError, status: int) -> R:
        """A request that nobody can be asked about; let through only where nothing is governed."""

    def watch(self) -> BodyWatch | None:
        """What looks for placeholders in a request's body, where there are any."""


class Stream:
    """A request that was let in, until both sides are through with it."""

    __slots__ = ("asked", "cost", "held", "held_window", "replied", "request", "ripe", "status", "tap", "watch")

    def __init__(self, request: Request, cost: int, *, asked: bool) -> None:
        """`asked`: the request is all there. `cost`: bytes of memory, about."""
        self.cost = cost
        self.request = request
        self.tap = request.tap
        self.asked = asked
        self.replied = False
        """The answer is all there."""
        self.status: int | None = None
        """The final answer's; 0: it cannot be read."""
        self.held: list[bytes] | None = None
        """Frames that have not gone on; `held_window` is what they take of the connection's window."""
        self.held_window = 0
        self.ripe = True
        """Its delay is over."""
        self.watch: BodyWatch | None = None


class OpenStreams:
    """The requests that have not ended, by the ids of their streams; bounded by the memory that they take."""

    __slots__ = ("_cost", "_delayed", "_streams", "_watch", "get")

    def __init__(self, watch: Callable[[], BodyWatch | None]) -> None:
        """`watch` makes what looks at the body of a request."""
        self._watch = watch
        self._delayed: dict[int, tuple[Request, int]] = {}
        self._streams: dict[int, Stream] = {}
        self._cost = 0
        self.get = self._streams.get

    def has_room(self, framed: HeaderBlock) -> bool:
        """Whether there may be one more, with this header block."""
        return self._cost + _memory_of(framed) <= MAX_OPEN_BYTES

    def open(self, number: int, request: Request, framed: HeaderBlock, *, asked: bool) -> Stream:
        """A request begins."""
        cost = _memory_of(framed)
        stream = self._streams[number] = Stream(request, cost, asked=asked)
        self._cost += cost
        if not asked:
            stream.watch = self._watch()
        elif stream.tap is not None:
            request.asked()
        return stream

    def asked(self, number: int, stream: Stream) -> None:
        """The request is all there."""
        stream.asked = True
        if stream.tap is not None:
            stream.request.asked()
        if stream.replied:
            self.end(number, stream)

    def replied(self, number: int, stream: Stream) -> None:
        """The answer is all there."""
        stream.replied = True
        if stream.asked:
            self.end(number, stream)

    def end(self, number: int, stream: Stream, error: RequestError | None = None) -> None:
        """It has ended, one way or another. An answer that is whole is no error."""
        del self._streams[number]
        self._cost -= stream.cost
        stream.request.finished(stream.status or None, None if stream.replied else error)

    def delay(self, number: int, request: Request, framed: HeaderBlock) -> None:
        """A request will be refused; until then it is neither here nor there."""
        cost = _memory_of(framed)
        self._delayed[number] = request, cost
        self._cost += cost

    def delayed(self, number: int) -> Request | None:
        """The request that is refused now; None where the connection is over."""
        request, cost = self._delayed.pop(number, (None, 0))
        self._cost -= cost
        return request

    def later_than(self, last: int) -> list[tuple[int, Stream]]:
        """The client's own with higher ids."""
        return [(number, stream) for number, stream in self._streams.items() if number > last and number % 2]

    def close(self, error: RequestError) -> None:
        """All have ended."""
        for number, stream in list(self._streams.items()):
            self.end(number, stream, error)
        for number in list(self._delayed):
            request = self.delayed(number)
            if request is not None:
                request.finished(None, error)


class WaitingStreams:
    """Requests that have not gone on yet, with their frames. They do in the order of their ids, and only when ripe."""

    __slots__ = ("_streams", "size")

    def __init__(self) -> None:
        self._streams: dict[int, Stream] = {}
        self.size = 0
        """Bytes held."""

    def __bool__(self) -> bool:
        return bool(self._streams)

    def enter(self, number: int, stream: Stream, frames: bytes) -> None:
        """A request waits: for its own delay, or for those before it."""
        self._streams[number] = stream
        stream.held = []
        self.hold(stream, frames)

    def hold(self, stream: Stream, frames: bytes, window: int = 0) -> None:
        """More of it came."""
        assert stream.held is not None
        stream.held.append(frames)
        stream.held_window += window
        self.size += len(frames)

    def due(self, open_stream: int) -> tuple[int, bytes] | None:
        """The next that goes on, with its frames. `open_stream`: of this one a frame is half there, and not yet due."""
        if not self._streams:
            return None
        number, stream = next(iter(self._streams.items()))
        if not stream.ripe or number == open_stream:
            return None
        return number, self._leave(number, stream)

    def drop(self, number: int, stream: Stream) -> int:
        """It will not go on; returns what of the connection's window was sent for nothing."""
        self._leave(number, stream)
        return stream.held_window

    def clear(self) -> None:
        """Nothing goes on any more."""
        self._streams.clear()

    def _leave(self, number: int, stream: Stream) -> bytes:
        assert stream.held is not None
        del self._streams[number]
        frames = b"".join(stream.held)
        stream.held = None
        self.size -= len(frames)
        return frames


class RefusedStreams:
    """Streams of which one side never hears: what is said of them must not go on. Remembers the last few thousand."""

    __slots__ = ("_numbers", "last_seen", "last_sent")

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}
        self.last_seen = 0
        """The client's latest stream."""
        self.last_sent = 0
        """The latest of them that the upstream has heard of."""

    def add(self, number: int) -> None:
        """This one was refused."""
        self._numbers[number] = None
        if len(self._numbers) > _MAX_REFUSED:
            del self._numbers[next(iter(self._numbers))]

    def __contains__(self, number: int) -> bool:
        return number in self._numbers or self.last_sent < number <= self.last_seen


class ClientWindow:
    """What the client takes of DATA (RFC 9113, section 5.2).

    Ours is not the upstream's to count: it is owed, and repaid out of what the client grants next. Until then the upstream
    may overrun the window, and is held up instead.
    """

    __slots__ = ("_owed", "_window", "stream")

    def __init__(self) -> None:
        self._window = DEFAULT_WINDOW
        self._owed = 0
        self.stream = DEFAULT_WINDOW
        """On a new stream."""

    @property
    def owes(self) -> bool:
        """Whether the upstream counts on more than there is."""
        return self._owed > 0

    def granted(self, increment: int) -> int:
        """The client grants more on the connection; returns how much of that the upstream may know of."""
        self._window += increment
        paid = min(self._owed, increment)
        self._owed -= paid
        return increment - paid

    def takes(self, size: int) -> bool:
        """Whether the upstream's frame of this size may go on now; it is counted then."""
        if self._owed and size > self._window:
            return False
        self._window -= size
        return True

    def takes_ours(self, size: int) -> bool:
        """Whether there is room for a body of our own; it is counted then."""
        if size > min(self._window, self.stream, DEFAULT_FRAME_SIZE):
            return False
        self._window -= size
        self._owed += size
        return True


def _memory_of(framed: HeaderBlock) -> int:
    """Bytes that a request takes, about: what its block says is kept until it ends, as objects."""
    return _STREAM_BYTES + 2 * len(framed.fragment)
