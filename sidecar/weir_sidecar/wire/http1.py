"""Heads of HTTP/1.x messages (RFC 9112): bytes in, facts out. Requests are read strictly, answers as far as they are clear.

A request that two servers could read in two ways is malformed here, since what a rule lets through must be what the
server gets. An answer is read only to know where it ends. Nothing is ever rewritten: who forwards, forwards the bytes.
"""

import re

import msgspec

from weir_sidecar.wire.hostname import authority_host

MAX_HEAD = 65536
"""Bytes of a start line and its header fields together."""
MAX_FIELDS = 256
MAX_LENGTH_DIGITS = 18
_LEAST_FIELD = len(b"a:\r\n")
_REMEMBERED = 4096
"""Bytes of a head that is remembered, at most."""

type Fields = list[tuple[bytes, bytes]]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_REQUEST = re.compile(
    rb"(?:\r\n){0,4}+(" + _TOKEN + rb"++) ([^\x00-\x20\x7f]++) HTTP/1\.([01])\r\n"
    rb"((?:" + _TOKEN + rb"++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+)\r\n"
)
_STATUS_LINE = re.compile(rb"http/1\.([01]) ([1-9][0-9][0-9])[ \r]")
_FIELD = re.compile(rb"([^:]++):[ \t]*+([^\r]*)\r\n")
_NOT_A_HEAD = re.compile(rb"\x00|(?<!\r)\n|\r[^\n]")
_LENGTH = re.compile(rb"[0-9]{1,%d}" % MAX_LENGTH_DIGITS)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)([^?]*)")

_HOST, _CONTENT_LENGTH, _TRANSFER_ENCODING = b"\r\nhost:", b"\r\ncontent-length:", b"\r\ntransfer-encoding:"
_UPGRADE = b"\r\nupgrade:"
_NO_BODY = frozenset((204, 304))


class MalformedError(ValueError):
    """Not a message that is understood; the text says why, `status` is what a server answers to such a request."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


class _Head(msgspec.Struct, frozen=True, gc=False):
    """What both heads have. `size`: bytes up to the body; `text`: the header fields, as they came."""

    size: int
    minor: int
    """Of the version: 0 or 1."""
    text: bytes
    chunked: bool

    def fields(self) -> Fields:
        """The header fields. Read only when asked for: most requests meet no rule that looks at them."""
        return [(name, value.rstrip(b" \t")) for name, value in _FIELD.findall(self.text)]


class RequestHead(_Head, frozen=True, gc=False):
    """The head of a request."""

    method: bytes
    target: bytes
    host: str | None
    path: bytes
    query: bytes | None
    length: int
    upgrade: bool
    """Whether it asks for another protocol."""

    @property
    def has_body(self) -> bool:
        """Whether anything follows it."""
        return self.chunked or self.length > 0


class AnswerHead(_Head, frozen=True, gc=False):
    """The head of an answer. `length` None and not `chunked`: its body ends with the connection."""

    start_line: bytes
    status: int
    length: int | None


def joined(held: bytearray, data: bytes) -> bytes | None:
    """What was `held` of a head and what came now, as soon as it is worth reading; None: it is held.

    That is when the head has its end, cannot become one, or is too long. So heads in many portions cost no more.
    """
    if not held:
        return data
    start = max(0, len(held) - 3)
    held += data
    if len(held) <= MAX_HEAD and held.find(b"\r\n\r\n", start) < 0 and _NOT_A_HEAD.search(held, start) is None:
        return None
    whole = bytes(held)
    held.clear()
    return whole


def parse_request(data: bytes, at: int = 0) -> RequestHead | None:
    """The head that begins at `at`; None: it is not whole. Raises `MalformedError`."""
    found = _REQUEST.match(data, at)
    if found is None or found.end() - at > MAX_HEAD:
        _incomplete_or_malformed(data, at)
        return None
    method, target, minor, text = found.groups()
    if len(text) > MAX_FIELDS * _LEAST_FIELD and text.count(b"\n") > MAX_FIELDS:
        raise MalformedError(f"more than {MAX_FIELDS} header fields", 431)
    # Lines are known to be well-formed, so that a name after a line's end can be nothing but a field's.
    low = b"\r\n" + text.lower()
    coding = _only(low, _TRANSFER_ENCODING)
    length = _only(low, _CONTENT_LENGTH)
    if coding is not None:
        if coding != b"chunked":
            raise MalformedError("Transfer-Encoding is not `chunked`", 501)
        if length is not None or minor == b"0":
            raise MalformedError("Transfer-Encoding beside Content-Length, or in HTTP/1.0")
    host, path, query = _target(method, target, _only(low, _HOST), minor)
    # In the order of the fields: with their names it would cost twice as much.
    return RequestHead(
        found.end() - at,
        int(minor),
        text,
        coding is not None,
        method,
        target,
        host,
        path,
        query,
        0 if length is None else _length(length),
        _UPGRADE in low,
    )


def parse_answer(data: bytes, at: int, method: bytes) -> AnswerHead | None:
    """The head of an answer to `method` that begins at `at`; None: it is not whole. Raises `MalformedError`."""
    end = data.find(b"\r\n\r\n", at)
    if end < 0 or end - at > MAX_HEAD:
        _incomplete_or_malformed(data, at)
        return None
    head = data[at : end + 2]
    low = head.lower()
    found = _STATUS_LINE.match(low)
    lines = low.count(b"\r\n")
    clear = low.count(b"\n") == lines == low.count(b"\r") and b"\r\n " not in low and b"\r\n\t" not in low
    if found is None or not clear or b"\0" in low:
        raise MalformedError("not a status line and header fields, each with CR LF at its end")
    status = int(found[2])
    chunked, length = False, None
    if status < 200 or status in _NO_BODY or method == b"HEAD":
        length = 0
    elif _TRANSFER_ENCODING in low:
        if _CONTENT_LENGTH in low:
            raise MalformedError("Transfer-Encoding beside Content-Length")
        chunked = low[low.rindex(_TRANSFER_ENCODING) :].split(b"\r\n", 2)[1].endswith((b"chunked", b"chunked "))
    else:
        told = _only(low, _CONTENT_LENGTH)
        length = None if told is None else _length(told)
    text_at = low.index(b"\n") + 1
    return AnswerHead(
        size=end + 4 - at,
        minor=int(found[1]),
        text=head[text_at:],
        chunked=chunked,
        start_line=head[:text_at],
        status=status,
        length=length,
    )


class HeadReader:
    """Reads the heads of one connection. Those that repeat, as they mostly do, are parsed once: a head is its bytes."""

    __slots__ = ("_answer", "_answer_bytes", "_request", "_request_bytes", "_to_head")

    def __init__(self) -> None:
        self._request: RequestHead | None = None
        self._answer: AnswerHead | None = None
        self._request_bytes = self._answer_bytes = b"\r\n\r\n"
        self._to_head = False

    def request(self, data: bytes, at: int) -> RequestHead | None:
        """As `parse_request`."""
        if data.startswith(self._request_bytes, at) and self._request is not None:
            return self._request
        head = parse_request(data, at)
        if head is not None and head.size <= _REMEMBERED:
            self._request, self._request_bytes = head, data[at : at + head.size]
        return head

    def answer(self, data: bytes, at: int, method: bytes) -> AnswerHead | None:
        """As `parse_answer`."""
        to_head = method == b"HEAD"
        if data.startswith(self._answer_bytes, at) and self._answer is not None and to_head is self._to_head:
            return self._answer
        head = parse_answer(data, at, method)
        if head is not None and head.size <= _REMEMBERED:
            self._answer, self._answer_bytes, self._to_head = head, data[at : at + head.size], to_head
        return head


def write_request(head: RequestHead, fields: Fields) -> bytes:
    """The head with other fields."""
    line = b"%b %b HTTP/1.%d\r\n" % (head.method, head.target, head.minor)
    return line + _written(fields)


def write_answer(head: AnswerHead, fields: Fields) -> bytes:
    """The head with other fields."""
    return head.start_line + _written(fields)


def without_upgrade_to_http2(fields: Fields) -> Fields | None:
    """The fields without an offer of h2c (RFC 7540, section 3.2); None: there is none.

    A server may ignore the offer. So the connection stays one that is read.
    """
    if not any(name.lower() == b"upgrade" and b"h2c" in _words(value) for name, value in fields):
        return None
    kept: Fields = []
    for name, value in fields:
        key = name.lower()
        if key == b"upgrade":
            left = [word for word in _words(value) if word != b"h2c"]
        elif key == b"connection":
            left = [word for word in _words(value) if word != b"http2-settings"]
        elif key == b"http2-settings":
            continue
        else:
            left = [value]
        if left:
            kept.append((name, b", ".join(left)))
    return kept


def _words(value: bytes) -> list[bytes]:
    return [word.strip(b" \t").lower() for word in value.split(b",")]


def _written(fields: Fields) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields]) + b"\r\n"


def _incomplete_or_malformed(data: bytes, at: int) -> None:
    """Raises `MalformedError` where more bytes would not help."""
    end = data.find(b"\r\n\r\n", at)
    while end == at:  # empty lines before a request (RFC 9112, section 2.2)
        at += 2
        end = data.find(b"\r\n\r\n", at)
    if (end if end >= 0 else len(data)) - at > MAX_HEAD:
        raise MalformedError(f"more than {MAX_HEAD} bytes before the body", 431)
    if end >= 0 or _NOT_A_HEAD.search(data, at) is not None:
        raise MalformedError("not a start line and header fields, each with CR LF at its end")


def _only(low: bytes, name: bytes) -> bytes | None:
    """The value of the one field of a name, in lower case; None: there is none. Raises `MalformedError`."""
    at = low.find(name)
    if at < 0:
        return None
    at += len(name)
    if low.find(name, at) >= 0:
        raise MalformedError(f"{name[2:-1].decode()} is there twice")
    return low[at : low.index(b"\r", at)].strip(b" \t")


def _length(value: bytes) -> int:
    if _LENGTH.fullmatch(value) is None:
        raise MalformedError("Content-Length is not a number of bytes")
    return int(value)


def _target(method: bytes, target: bytes, named: bytes | None, minor: bytes) -> tuple[str | None, bytes, bytes | None]:
    """Host, path and query of a request (RFC 9112, section 3.2). Raises `MalformedError`."""
    if named is None and minor == b"1":
        raise MalformedError("no Host")
    host = authority_host(named) if named else None
    if named and host is None:
        raise MalformedError("Host is not a host")
    if b"#" in target:
        raise MalformedError("the target has a fragment")
    if method == b"CONNECT":
        return _agreed(target, host, named), b"", None
    path, mark, query = target.partition(b"?")
    if not path.startswith(b"/") and not (path == b"*" and method == b"OPTIONS" and not mark):
        absolute = _ABSOLUTE.fullmatch(path)
        if absolute is None:
            raise MalformedError("the target is neither a path nor a URL")
        host, path = _agreed(absolute[1], host, named), absolute[2] or b"/"
    return host, path, query if mark else None


def _agreed(authority: bytes, host: str | None, named: bytes | None) -> str:
    """The host of a target that has one: the same as that of Host, where there is one."""
    found = authority_host(authority)
    if found is None or (named and found != host):
        raise MalformedError("the target names another host than Host, or none")
    return found
