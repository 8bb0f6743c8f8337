"""Where the body of an HTTP/1.x message ends (RFC 9112, sections 6 and 7). Bytes are walked over, never copied."""

import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from weir_sidecar.wire.http1 import MAX_HEAD, MalformedError

MAX_CHUNK_LINE = 4096
"""Bytes of a chunk's size and its extensions."""

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_NEXT = re.compile(rb"\r\n([0-9A-Fa-f]{1,15})\r\n")
"""Between most chunks."""
_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[^\x00-\x08\x0a-\x1f\x7f]*\r\n")
_NO_TRAILERS = frozenset((b"content-length", b"transfer-encoding", b"host", b"connection", b"upgrade", b"trailer"))
"""A server that merges trailers into the head would read another message (RFC 9110, section 6.5.1)."""


class _State(Enum):
    SIZE = auto()
    DATA_END = auto()
    TRAILER = auto()


_ENDLESS = 1 << 62


class Watch(Protocol):
    """What is shown a body's content and trailers, and says what may not be in them."""

    def finds(self, data: bytes, start: int, end: int) -> bool:
        """Whether it is there, in `data` from `start` to `end` and what came before."""


class Body:
    """Walks over one body. `done`: it has ended.

    `sink` is given the places of its content in what is taken, where one is set.
    """

    __slots__ = ("_chunked", "_left", "_line", "_state", "_told", "_trailers", "done", "sink", "until_end", "watch")

    def __init__(self, length: int | None, *, chunked: bool) -> None:
        """`length` None and not `chunked`: it ends with the connection."""
        self._chunked = chunked
        self.until_end = length is None and not chunked
        """Whether the end of the connection is its end."""
        self._left = self._told = _ENDLESS if self.until_end else length or 0
        self._line = b""
        self._state = _State.SIZE
        self._trailers = 0
        self.watch: Watch | None = None
        self.sink: Callable[[bytes, int, int], None] | None = None
        self.done = not chunked and length == 0

    @property
    def content(self) -> int:
        """Bytes of it that have passed, without what frames chunks."""
        return self._told - self._left

    @property
    def left(self) -> int:
        """Bytes, of the body or of its chunk, that need no walk; none where anybody looks at them.

        Who passes some of them on unseen takes them off. The last one must be walked over, so that the end is found.
        """
        return self._left if self.watch is None and self.sink is None else 0

    @left.setter
    def left(self, left: int) -> None:
        self._left = left

    def take(self, data: bytes, at: int) -> int:
        """Walk from `at` on; returns where the body ends, or the end of `data`. Raises `MalformedError`."""
        if self._chunked:
            return self._take_chunked(data, at)
        at = self._take_content(data, at)
        self.done = not self._left
        return at

    def _take_content(self, data: bytes, at: int) -> int:
        end = min(at + self._left, len(data))
        self._show(data, at, end)
        self._left -= end - at
        if self.sink is not None:
            self.sink(data, at, end)
        return end

    def _take_chunked(self, data: bytes, at: int) -> int:
        end = len(data)
        while at < end and not self.done:
            if self._left:
                at = self._take_content(data, at)
                continue
            if self._state is _State.DATA_END and not self._line:
                found = _NEXT.match(data, at)
                if found is not None:
                    at = found.end()
                    self._begin_chunk(found[1])
                    continue
            newline = data.find(b"\n", at) + 1
            if self._state is _State.TRAILER:
                self._show(data, at, newline or end)
            line = self._line + data[at : newline or end]
            at = newline or end
            if len(line) > (MAX_HEAD if self._state is _State.TRAILER else MAX_CHUNK_LINE):
                raise MalformedError("a line of a chunked body is too long")
            if newline:
                self._line = b""
                self._read_line(line)
            else:
                self._line = line
        return at

    def _read_line(self, line: bytes) -> None:
        match self._state:
            case _State.SIZE:
                found = _SIZE.fullmatch(line)
                if found is None:
                    raise MalformedError("a chunk does not begin with its size")
                self._begin_chunk(found[1])
            case _State.DATA_END:
                if line != b"\r\n":
                    raise MalformedError("a chunk is not as long as it says")
                self._state = _State.SIZE
            case _State.TRAILER:
                self._read_trailer(line)

    def _begin_chunk(self, size: bytes) -> None:
        self._left = int(size, 16)
        self._told += self._left
        self._state = _State.DATA_END if self._left else _State.TRAILER

    def _read_trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.done = True
            return
        found = _TRAILER.fullmatch(line)
        self._trailers += len(line)
        if found is None or found[1].lower() in _NO_TRAILERS or self._trailers > MAX_HEAD:
            raise MalformedError("a trailer field that is not allowed")

    def _show(self, data: bytes, start: int, end: int) -> None:
        if self.watch is not None and self.watch.finds(data, start, end):
            raise MalformedError("a body has what may not be sent", 403)
