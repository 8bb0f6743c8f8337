"""Reads the answer of the config stream: an HTTP/1.1 head, a body of whatever length, lines in it (RFC 9112). Strict.

For our own client alone, never for traffic of the pod. Bytes may come in any portions.
"""

import re
from enum import Enum, auto

import msgspec

MAX_HEAD = 16384
"""Bytes of the status line and the header fields together, and of the trailer fields."""
_MAX_CHUNK_LINE = 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ?[\t -~\x80-\xff]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*+([\t -~\x80-\xff]*+)")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_LENGTH = re.compile(rb"[0-9]{1,9}")


class AnswerError(ValueError):
    """Not an answer that is understood; the text says why."""


class Head(msgspec.Struct, frozen=True):
    """Status, and how long the body is: chunked, so many bytes, or (both not) until the connection ends."""

    status: int
    chunked: bool
    length: int | None


class _State(Enum):
    HEAD = auto()
    CHUNK_LINE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    DATA = auto()
    UNTIL_END = auto()
    END = auto()


class AnswerReader:
    """An answer as it comes. `feed` gives the body's bytes; `head` is None until it is whole."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.ended = False
        """The body is whole."""
        self._data = bytearray()
        self._left = 0
        """Bytes of the chunk, or of the body, that are to come."""
        self._state = _State.HEAD

    def feed(self, data: bytes) -> bytes:
        """Take bytes in; returns those of the body. Raises `AnswerError`."""
        self._data += data
        body = bytearray()
        while self._step(body):
            pass
        return bytes(body)

    def finish(self) -> None:
        """The connection has ended. Raises `AnswerError` where that cuts the answer short."""
        if self._state is _State.UNTIL_END:
            self.ended = True
        if not self.ended:
            raise AnswerError("the connection ended in the middle of the answer")

    def _step(self, body: bytearray) -> bool:
        """One step; False where more bytes are needed, or none."""
        match self._state:
            case _State.HEAD:
                return self._read_head()
            case _State.CHUNK_LINE:
                return self._read_chunk_line()
            case _State.DATA | _State.CHUNK:
                return self._read_data(body)
            case _State.CHUNK_END:
                return self._read_chunk_end()
            case _State.TRAILER:
                return self._read_trailer()
            case _:
                return self._read_rest(body)

    def _read_head(self) -> bool:
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD:
            raise AnswerError(f"status line and header fields have more than {MAX_HEAD} bytes")
        if not end:
            return False
        self._data = rest
        line, *fields = bytes(head).split(b"\r\n")
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            raise AnswerError("the status line is not `HTTP/1.1 STATUS …`")
        made = _head(int(found[1]), fields)
        if made.status < 200:
            return True  # an interim answer (RFC 9110, section 15.2): the real one follows
        self.head = made
        self._left = made.length or 0
        if made.chunked:
            self._state = _State.CHUNK_LINE
        elif made.length is None:
            self._state = _State.UNTIL_END
        else:
            self._state = _State.DATA
        return True

    def _read_chunk_line(self) -> bool:
        line = self._line(_MAX_CHUNK_LINE, "a chunk's first line")
        if line is None:
            return False
        found = _CHUNK_LINE.fullmatch(line)
        if found is None:
            raise AnswerError("a chunk does not begin with its length")
        self._left = int(found[1], 16)
        self._state = _State.CHUNK if self._left else _State.TRAILER
        return True

    def _read_data(self, body: bytearray) -> bool:
        taken = self._data[: self._left]
        body += taken
        del self._data[: len(taken)]
        self._left -= len(taken)
        if self._left:
            return False
        if self._state is _State.CHUNK:
            self._state = _State.CHUNK_END
        else:
            self._end()
        return True

    def _read_chunk_end(self) -> bool:
        if len(self._data) < 2:
            return False
        if self._data[:2] != b"\r\n":
            raise AnswerError("a chunk is longer than it said")
        del self._data[:2]
        self._state = _State.CHUNK_LINE
        return True

    def _read_trailer(self) -> bool:
        line = self._line(MAX_HEAD, "a trailer field")
        if line is None:
            return False
        self._left += len(line)
        if self._left > MAX_HEAD:
            raise AnswerError(f"the trailer fields have more than {MAX_HEAD} bytes")
        if not line:
            self._end()
        return True

    def _read_rest(self, body: bytearray) -> bool:
        if self._state is _State.UNTIL_END:
            body += self._data
            self._data.clear()
        elif self._data:
            raise AnswerError("bytes after the end of the answer")
        return False

    def _line(self, limit: int, what: str) -> bytes | None:
        end = self._data.find(b"\r\n")
        if max(end, len(self._data) - 2 if end < 0 else 0) > limit:
            raise AnswerError(f"{what} has more than {limit} bytes")
        if end < 0:
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        return line

    def _end(self) -> None:
        self.ended = True
        self._state = _State.END


class LineReader:
    """Lines out of bytes that come in any portions; a line is at most `limit` bytes long."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole now, without their ends. Raises `AnswerError`."""
        begun = len(self._data)
        self._data += data
        # Only what is new is searched: a long line comes in many portions.
        last = self._data.rfind(b"\n", begun)
        lines: list[bytes] = []
        if last >= 0:
            lines = bytes(self._data[:last]).split(b"\n")
            del self._data[: last + 1]
        if max(len(self._data), *map(len, lines), 0) > self._limit:
            raise AnswerError(f"a line has more than {self._limit} bytes")
        return lines


def _head(status: int, lines: list[bytes]) -> Head:
    """Raises `AnswerError` where the body's length is doubtful (RFC 9112, section 6.3)."""
    values: dict[bytes, bytes] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise AnswerError("a header field is not `Name: value`")
        name = found[1].lower()
        if name in values and name in (b"content-length", b"transfer-encoding"):
            raise AnswerError(f"{name.decode()} is there twice")
        values[name] = found[2].rstrip(b" \t")
    coding, length = values.get(b"transfer-encoding"), values.get(b"content-length")
    if coding is not None and (coding.lower() != b"chunked" or length is not None):
        raise AnswerError("the body's length is not told in one way that is understood")
    if length is not None and _LENGTH.fullmatch(length) is None:
        raise AnswerError("Content-Length is not a number of bytes")
    return Head(status, coding is not None, None if length is None else int(length))


def chunk(data: bytes) -> bytes:
    """`data`, which is not empty, as one chunk of a request's body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
