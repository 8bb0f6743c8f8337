"""HTTP/2 on the wire (RFC 9113): what frames say, and the few that a relay says itself. `http2_walk` tells them apart."""

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
    may be several frames of one stream, without flags: `first` is of the first of them, `last` of the last, `length` of
    all; `payloads` tells what is between their heads.
    """

    type: int
    flags: int
    stream: int
    start: int
    end: int
    length: int
    padding: int = 0
    """Bytes of `length` that are padding, its own length included (section 6.1); told with the first piece."""
    begun: int = 0
    """Payload of the DATA frames that begin in it, with what of them is still to come."""
    before: int = 0
    """Bytes of `length` that are of a frame which began in an earlier piece."""
    last: bool = True

    @property
    def first(self) -> bool:
        """Whether a frame begins with it."""
        return not self.before


FRAME_HEAD = Packing(">HBBBI")
"""Length in two parts, type, flags, stream with its reserved bit."""
SETTING = Packing(">HI")
_number = Packing(">I")
STREAM_BITS = 0x7FFFFFFF


def begins_http2(data: bytes) -> bool:
    """Whether a server's first bytes are SETTINGS, with which it begins HTTP/2 (section 3.4)."""
    if len(data) < HEAD_BYTES:
        return False
    high, low, kind, flags, stream = FRAME_HEAD.unpack_from(data)
    length = high << 8 | low
    return bool(
        kind == SETTINGS and flags == stream == 0 and length <= MAX_CONTROL_BYTES and length % SETTING.size == 0
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
        return HeaderBlock(fragment, promised=_number.unpack(prefix)[0] & STREAM_BITS)
    return HeaderBlock(fragment, prefix)


def _continuations(buffer: bytes, at: int, end: int) -> Iterator[bytes]:
    while at < end:
        high, low, *_ = FRAME_HEAD.unpack_from(buffer, at)
        after = at + HEAD_BYTES + (high << 8 | low)
        yield buffer[at + HEAD_BYTES : after]
        at = after


def payloads(buffer: bytes, piece: Piece) -> Iterator[tuple[int, int]]:
    """Where the payload of DATA is in a piece, frame by frame; padding and its length count as payload."""
    at = piece.start + piece.before
    if piece.before:
        yield piece.start, at
    while at < piece.end:
        high, low, *_ = FRAME_HEAD.unpack_from(buffer, at)
        at += HEAD_BYTES
        end = min(at + (high << 8 | low), piece.end)
        yield at, end
        at = end


def number(buffer: bytes, piece: Piece) -> int:
    """The 31-bit number that WINDOW_UPDATE and GOAWAY begin with: the increment, the last stream."""
    return int(_number.unpack_from(buffer, piece.start + HEAD_BYTES)[0]) & STREAM_BITS


def settings(buffer: bytes, piece: Piece) -> list[tuple[int, int]]:
    """Identifiers and values of SETTINGS, in their order."""
    return list(SETTING.iter_unpack(memoryview(buffer)[piece.start + HEAD_BYTES : piece.end]))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Any frame."""
    length = len(payload)
    return FRAME_HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


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
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(*value) for value in values))


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, stream, _number.pack(code))


def goaway(last: int, code: ErrorCode, text: str = "") -> bytes:
    """GOAWAY; `text` is for whoever debugs."""
    return frame(GOAWAY, 0, 0, _number.pack(last) + _number.pack(code) + text.encode())


def window_update(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, _number.pack(increment))
