"""HTTP/2 on the wire (RFC 9113): a walk over the frames of one direction, and the few frames that a relay says itself.

The walk takes bytes as they come and tells which part of them is what. DATA, and frames of types it does not know, are
told as they come and never held; all others are held until they are whole, a header block with its CONTINUATIONs.
"""

from collections.abc import Iterable, Iterator
from enum import IntEnum
from struct import Struct as Packing
from typing import Final

import msgspec

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client says first (section 3.4)."""
HEAD_BYTES: Final = 9
DEFAULT_FRAME_SIZE: Final = 16384
LARGEST_FRAME_SIZE: Final = 2**24 - 1
DEFAULT_WINDOW: Final = 65535
MAX_BLOCK_BYTES: Final = 131072
"""Of one header block as it was sent, its frames' heads included. It is held whole."""
MAX_CONTINUATIONS: Final = 64
"""Of one header block (CERT/CC VU#421644: they may be empty, and without end)."""
MAX_CONTROL_BYTES: Final = 16384
"""Of any other frame that is held whole: SETTINGS and GOAWAY have no bound of their own."""

# Section 6. Plain numbers: they are compared for each frame.
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9
PREFACE_PIECE: Final = -1
"""Not a frame: the preface as a `Piece`."""

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20


class ErrorCode(IntEnum):
    """Section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    """Section 6.5.2, those that a relay must know."""

    HEADER_TABLE_SIZE = 1
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


class FrameError(ValueError):
    """What a connection must end with; `code` goes into GOAWAY."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A part of the walk's `buffer`, from `start` to `end`: a whole frame, or as much of one as has come.

    Of a header block it is all frames, and `flags` are those of the first, with END_HEADERS. Of DATA and unknown types
    `first` and `last` tell whether the frame begins and ends in it, and `length` counts its payload in this piece. DATA
    may be several frames of one stream, without flags: `last` is of the last of them, `length` of all; `payloads` tells
    what is between their heads.
    """

    type: int
    flags: int
    stream: int
    start: int
    end: int
    length: int
    padding: int = 0
    """Bytes of `length` that are padding, its own length included (section 6.1); told with the first piece."""
    first: bool = True
    last: bool = True


class _Law(msgspec.Struct, frozen=True):
    """What a type of frame must be: on a stream or on none (None: either), its length where that is fixed."""

    on_stream: bool | None
    length: int | None = None


_LAWS = {
    DATA: _Law(on_stream=True),
    HEADERS: _Law(on_stream=True),
    PRIORITY: _Law(on_stream=True, length=5),
    RST_STREAM: _Law(on_stream=True, length=4),
    SETTINGS: _Law(on_stream=False),
    PUSH_PROMISE: _Law(on_stream=True),
    PING: _Law(on_stream=False, length=8),
    GOAWAY: _Law(on_stream=False),
    WINDOW_UPDATE: _Law(on_stream=None, length=4),
    CONTINUATION: _Law(on_stream=True),
}
_BLOCKS = (HEADERS, PUSH_PROMISE)

_head = Packing(">HBBBI")
_setting = Packing(">HI")
_number = Packing(">I")
_STREAM = 0x7FFFFFFF


class FrameWalk:
    """Tells the frames of one direction. After `feed`, the pieces are parts of `buffer`, gapless and in order.

    `error` is set where the bytes stop being HTTP/2 that may be passed on: the pieces before still count.
    """

    __slots__ = ("_held", "_need", "_open", "_wants_preface", "buffer", "error", "joins", "max_frame_size", "rest")

    def __init__(self, *, client: bool) -> None:
        """`client`: this is the client's direction, which begins with the preface."""
        self.buffer = b""
        self.error: FrameError | None = None
        self.max_frame_size = DEFAULT_FRAME_SIZE
        """The most that the receiver ever allowed."""
        self.joins = True
        """Whether DATA that is of one stream, frame after frame, is told as one piece, as bulk had better be."""
        self._wants_preface = client
        self._held = bytearray()
        """The beginning of what must be whole; with `_need` bytes of it there is something to be told."""
        self._need = HEAD_BYTES
        self._open: Piece | None = None
        """The frame whose payload is being told as it comes."""
        self.rest = 0
        """Bytes of that payload that are still to come; 0: between frames."""

    @property
    def open_stream(self) -> int:
        """The stream of the frame whose payload is being told; 0: between frames."""
        return 0 if self._open is None or not self.rest else self._open.stream

    def feed(self, data: bytes) -> list[Piece]:
        """Take bytes in. What is not whole yet is kept, and comes with a later call."""
        held = self._held
        if held:
            if len(held) + len(data) < self._need:
                held += data
                return []
            data = b"".join((held, data))
            held.clear()
        self.buffer = data
        pieces: list[Piece] = []
        try:
            at = self._begin(data, pieces)
            while (after := self._frame(data, at, pieces)) > at:
                at = after
        except FrameError as error:
            self.error = error
            return pieces
        if at < len(data):
            self._held += memoryview(data)[at:]
        return pieces

    def _begin(self, data: bytes, pieces: list[Piece]) -> int:
        """Tell the preface, or what has come of a frame's payload; returns where the next frame begins."""
        if self.rest:
            opened = self._open
            assert opened is not None
            come = min(self.rest, len(data))
            self.rest -= come
            pieces.append(
                Piece(opened.type, opened.flags, opened.stream, 0, come, come, 0, first=False, last=self.rest == 0)
            )
            return come
        if self._wants_preface:
            size = len(PREFACE)
            if not data.startswith(PREFACE[: len(data)]):
                raise FrameError(ErrorCode.PROTOCOL_ERROR, "the client does not begin with the preface of HTTP/2")
            if len(data) < size:
                return 0
            self._wants_preface = False
            pieces.append(Piece(PREFACE_PIECE, 0, 0, 0, size, size))
            return size
        return 0

    def _frame(self, data: bytes, at: int, pieces: list[Piece]) -> int:
        """Tell the frame at `at`; returns where it ends, or `at` again where more bytes are needed."""
        if self._wants_preface or len(data) - at < HEAD_BYTES:
            self._need = HEAD_BYTES
            return at
        high, low, kind, flags, stream = _head.unpack_from(data, at)
        length = high << 8 | low
        stream &= _STREAM
        if length > self.max_frame_size:
            raise FrameError(
                ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes; {self.max_frame_size} are allowed"
            )
        if kind == DATA or kind > CONTINUATION:
            return self._passing(data, at, Piece(kind, flags, stream, at, at + HEAD_BYTES + length, length), pieces)
        end = at + HEAD_BYTES + length
        if kind != HEADERS or not flags & END_HEADERS or stream == 0:  # else it is what most frames are
            _check(kind, flags, length, stream)
            if kind in _BLOCKS:
                end = self._block_end(data, at, length, flags, stream)
                flags |= END_HEADERS
        if end > len(data):
            self._need = end - at
            return at
        pieces.append(Piece(kind, flags, stream, at, end, length))
        return int(end)

    def _passing(self, data: bytes, at: int, whole: Piece, pieces: list[Piece]) -> int:
        padding = 0
        if whole.type == DATA:
            if whole.stream == 0:
                raise FrameError(ErrorCode.PROTOCOL_ERROR, "DATA on no stream")
            if whole.flags & PADDED:
                if whole.length and len(data) - at == HEAD_BYTES:
                    self._need = HEAD_BYTES + 1
                    return at
                padding = data[at + HEAD_BYTES] + 1 if whole.length else 1
                if padding > whole.length:
                    raise FrameError(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
        end, length = whole.end, whole.length
        if whole.type == DATA and not whole.flags and self.joins:
            end, length = self._joined(data, at, end, length)
        self.rest = max(0, end - len(data))
        self._open = whole if self.rest else None
        end -= self.rest
        pieces.append(
            Piece(whole.type, whole.flags, whole.stream, at, end, length - self.rest, padding, last=self.rest == 0)
        )
        return end

    def _joined(self, data: bytes, at: int, end: int, length: int) -> tuple[int, int]:
        """Where the last of the frames ends that go on with what the one at `at` begins, and the payload of all."""
        alike = data[at + 3 : at + HEAD_BYTES]
        last = len(data) - HEAD_BYTES
        while end <= last and data.startswith(alike, end + 3):
            more = data[end] << 16 | data[end + 1] << 8 | data[end + 2]
            if more > self.max_frame_size:
                break
            end += HEAD_BYTES + more
            length += more
        return end, length

    def _block_end(self, data: bytes, at: int, length: int, flags: int, stream: int) -> int:
        """Where a header block ends that begins at `at`, with its last CONTINUATION; or that one's head, which is to come."""
        end = at + HEAD_BYTES + length
        count = 0
        while True:
            if end - at > MAX_BLOCK_BYTES or count > MAX_CONTINUATIONS:
                raise FrameError(ErrorCode.ENHANCE_YOUR_CALM, "a header block of too many bytes, or frames")
            if flags & END_HEADERS:
                return end
            if len(data) < end + HEAD_BYTES:
                return end + HEAD_BYTES
            high, low, kind, flags, of = _head.unpack_from(data, end)
            length = high << 8 | low
            if kind != CONTINUATION or of & _STREAM != stream:
                raise FrameError(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
            if length > self.max_frame_size:
                raise FrameError(ErrorCode.FRAME_SIZE_ERROR, "a CONTINUATION larger than allowed")
            end += HEAD_BYTES + length
            count += 1


def _check(kind: int, flags: int, length: int, stream: int) -> None:
    law = _LAWS[kind]
    if kind == CONTINUATION:
        raise FrameError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of no header block")
    if law.on_stream is not None and law.on_stream is not (stream != 0):
        raise FrameError(ErrorCode.PROTOCOL_ERROR, f"a frame of type {kind} on stream {stream}")
    if law.length is not None and length != law.length:
        raise FrameError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of type {kind} with {length} bytes")
    if kind == SETTINGS and (length % _setting.size or (flags & ACK and length)):
        raise FrameError(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {length} bytes")
    if (kind == GOAWAY and length < 8) or (length > MAX_CONTROL_BYTES and kind not in _BLOCKS):
        raise FrameError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of type {kind} with {length} bytes")


def begins_http2(data: bytes) -> bool:
    """Whether a server's first bytes are SETTINGS, with which it begins HTTP/2 (section 3.4)."""
    if len(data) < HEAD_BYTES:
        return False
    high, low, kind, flags, stream = _head.unpack_from(data)
    length = high << 8 | low
    return bool(
        kind == SETTINGS and flags == stream == 0 and length <= MAX_CONTROL_BYTES and length % _setting.size == 0
    )


class HeaderBlock(msgspec.Struct, frozen=True, gc=False):
    """What HEADERS or PUSH_PROMISE with its CONTINUATIONs holds. `fragment`: what HPACK reads."""

    fragment: bytes
    priority: bytes = b""
    """The five bytes of dependency and weight, where they are there (section 6.2)."""
    promised: int = 0
    """PUSH_PROMISE: the stream it promises."""


def header_block(buffer: bytes, piece: Piece) -> HeaderBlock:
    """Take a header block out of its frames. Raises `FrameError`."""
    start, end = piece.start + HEAD_BYTES, piece.start + HEAD_BYTES + piece.length
    if end == piece.end and piece.type == HEADERS and not piece.flags & (PADDED | HAS_PRIORITY):
        return HeaderBlock(buffer[start:end])
    rest = end  # of the frames, behind the first
    if piece.flags & PADDED:
        padding = buffer[start] if start < end else 0
        start, end = start + 1, end - padding
    fixed = 4 if piece.type == PUSH_PROMISE else 5 if piece.flags & HAS_PRIORITY else 0
    if start + fixed > end:
        raise FrameError(ErrorCode.PROTOCOL_ERROR, "a header block with more padding than payload, or too short")
    prefix = buffer[start : start + fixed]
    fragment = buffer[start + fixed : end]
    if rest < piece.end:
        fragment += b"".join(_continuations(buffer, rest, piece.end))
    if piece.type == PUSH_PROMISE:
        return HeaderBlock(fragment, promised=_number.unpack(prefix)[0] & _STREAM)
    return HeaderBlock(fragment, prefix)


def _continuations(buffer: bytes, at: int, end: int) -> Iterator[bytes]:
    while at < end:
        high, low, *_ = _head.unpack_from(buffer, at)
        after = at + HEAD_BYTES + (high << 8 | low)
        yield buffer[at + HEAD_BYTES : after]
        at = after


def payloads(buffer: bytes, piece: Piece) -> Iterator[tuple[int, int]]:
    """Where the payload of DATA is in a piece, frame by frame; padding and its length count as payload."""
    at = piece.start
    if not piece.first:
        yield at, piece.end
        return
    while at < piece.end:
        high, low, *_ = _head.unpack_from(buffer, at)
        at += HEAD_BYTES
        end = min(at + (high << 8 | low), piece.end)
        yield at, end
        at = end


def number(buffer: bytes, piece: Piece) -> int:
    """The 31-bit number that WINDOW_UPDATE and GOAWAY begin with: the increment, the last stream."""
    return int(_number.unpack_from(buffer, piece.start + HEAD_BYTES)[0]) & _STREAM


def settings(buffer: bytes, piece: Piece) -> list[tuple[int, int]]:
    """Identifiers and values of SETTINGS, in their order."""
    return list(_setting.iter_unpack(memoryview(buffer)[piece.start + HEAD_BYTES : piece.end]))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Any frame."""
    length = len(payload)
    return _head.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def headers_frames(
    flags: int, stream: int, fragment: bytes, priority: bytes = b"", limit: int = DEFAULT_FRAME_SIZE
) -> bytes:
    """HEADERS, with as many CONTINUATIONs as `limit`, the receiver's largest frame, makes necessary."""
    return _block_frames(
        HEADERS, flags & END_STREAM | (HAS_PRIORITY if priority else 0), stream, priority + fragment, limit
    )


def push_promise_frames(stream: int, promised: int, fragment: bytes, limit: int = DEFAULT_FRAME_SIZE) -> bytes:
    """PUSH_PROMISE, with as many CONTINUATIONs as `limit` makes necessary."""
    return _block_frames(PUSH_PROMISE, 0, stream, _number.pack(promised) + fragment, limit)


def _block_frames(kind: int, flags: int, stream: int, payload: bytes, limit: int) -> bytes:
    if len(payload) <= limit:
        return frame(kind, flags | END_HEADERS, stream, payload)
    out = [frame(kind, flags, stream, payload[:limit])]
    for at in range(limit, len(payload), limit):
        last = END_HEADERS if at + limit >= len(payload) else 0
        out.append(frame(CONTINUATION, last, stream, payload[at : at + limit]))
    return b"".join(out)


def settings_frame(values: Iterable[tuple[int, int]]) -> bytes:
    """SETTINGS."""
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(*value) for value in values))


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, stream, _number.pack(code))


def goaway(last: int, code: ErrorCode, text: str = "") -> bytes:
    """GOAWAY; `text` is for whoever debugs."""
    return frame(GOAWAY, 0, 0, _number.pack(last) + _number.pack(code) + text.encode())


def window_update(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, _number.pack(increment))
