"""Tells the frames of one direction of HTTP/2 (RFC 9113).

The walk takes bytes as they come and tells which part of them is what. DATA, and frames of types it does not know, are
told as they come and never held; all others are held until they are whole, a header block with its CONTINUATIONs.
"""

from typing import Final

import msgspec

from weir_sidecar.wire.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_SIZE,
    END_HEADERS,
    FRAME_HEAD,
    GOAWAY,
    HEAD_BYTES,
    HEADERS,
    MAX_CONTROL_BYTES,
    PADDED,
    PING,
    PREFACE,
    PREFACE_PIECE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTING,
    SETTINGS,
    STREAM_BITS,
    WINDOW_UPDATE,
    ErrorCode,
    FrameError,
    Piece,
)

MAX_BLOCK_BYTES: Final = 131072
"""Of one header block as it was sent, its frames' heads included. It is held whole."""
MAX_CONTINUATIONS: Final = 64
"""Of one header block (CERT/CC VU#421644: they may be empty, and without end)."""


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


class FrameWalk:
    """Tells the frames of one direction. After `feed`, the pieces are parts of `buffer`, gapless and in order.

    `error` is set where the bytes stop being HTTP/2 that may be passed on: the pieces before still count.
    """

    __slots__ = (
        "_alike",
        "_held",
        "_need",
        "_open",
        "_wants_preface",
        "buffer",
        "error",
        "joins",
        "max_frame_size",
        "rest",
    )

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
        self._alike = b""
        """What more frames like the one that is open have behind their lengths."""
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
            return self._go_on(data, pieces)
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

    def _go_on(self, data: bytes, pieces: list[Piece]) -> int:
        opened, size = self._open, len(data)
        assert opened is not None
        end = length = before = min(self.rest, size)
        self.rest -= before
        begun = 0
        if self.joins and not self.rest and opened.type == DATA and not opened.flags:
            end, begun = self._joined(data, end, self._alike)
            self.rest = max(0, end - size)
            end -= self.rest
            length += begun - self.rest
        pieces.append(
            Piece(opened.type, opened.flags, opened.stream, 0, end, length, 0, begun, before, last=not self.rest)
        )
        return end

    def _frame(self, data: bytes, at: int, pieces: list[Piece]) -> int:
        """Tell the frame at `at`; returns where it ends, or `at` again where more bytes are needed."""
        if self._wants_preface or len(data) - at < HEAD_BYTES:
            self._need = HEAD_BYTES
            return at
        high, low, kind, flags, stream = FRAME_HEAD.unpack_from(data, at)
        length = high << 8 | low
        stream &= STREAM_BITS
        if length > self.max_frame_size:
            raise FrameError(
                ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes; {self.max_frame_size} are allowed"
            )
        if kind == DATA or kind > CONTINUATION:
            return self._passing(data, at, kind, flags, stream, length, pieces)
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

    def _passing(  # noqa: PLR0913, PLR0917  (the four that a head says)
        self, data: bytes, at: int, kind: int, flags: int, stream: int, length: int, pieces: list[Piece]
    ) -> int:
        """Tell as much as has come of a frame that need not be whole."""
        padding, begun = 0, length
        end = at + HEAD_BYTES + length
        if kind == DATA:
            if stream == 0:
                raise FrameError(ErrorCode.PROTOCOL_ERROR, "DATA on no stream")
            if flags & PADDED:
                if length and len(data) - at == HEAD_BYTES:
                    self._need = HEAD_BYTES + 1
                    return at
                padding = data[at + HEAD_BYTES] + 1 if length else 1
                if padding > length:
                    raise FrameError(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
            elif not flags:
                self._alike = data[at + 3 : at + HEAD_BYTES]
                if self.joins:
                    end, more = self._joined(data, end, self._alike)
                    begun += more
        self.rest = max(0, end - len(data))
        end -= self.rest
        pieces.append(Piece(kind, flags, stream, at, end, begun - self.rest, padding, begun, last=not self.rest))
        self._open = pieces[-1] if self.rest else None
        return end

    def _joined(self, data: bytes, at: int, alike: bytes) -> tuple[int, int]:
        """Where the frames end that follow at `at` and have a head like this one but for the length; their payload."""
        end, payload, last = at, 0, len(data) - HEAD_BYTES
        while end <= last and data.startswith(alike, end + 3):
            head = data[end : end + HEAD_BYTES]
            length = head[0] << 16 | head[1] << 8 | head[2]
            if length > self.max_frame_size:
                break
            while data.startswith(head, end):  # most are as long as the one before
                end += HEAD_BYTES + length
                payload += length
        return end, payload

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
            high, low, kind, flags, of = FRAME_HEAD.unpack_from(data, end)
            length = high << 8 | low
            if kind != CONTINUATION or of & STREAM_BITS != stream:
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
    if kind == SETTINGS and (length % SETTING.size or (flags & ACK and length)):
        raise FrameError(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {length} bytes")
    if (kind == GOAWAY and length < 8) or (length > MAX_CONTROL_BYTES and kind not in _BLOCKS):
        raise FrameError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of type {kind} with {length} bytes")
