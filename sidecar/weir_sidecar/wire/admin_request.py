"""Reads one HTTP/1.1 request of the admin endpoint (RFC 9112), strictly: what it does not need, it refuses.

Not for traffic of the pod. No chunked bodies, no folded lines, no second request on a connection.
"""

import re
from enum import StrEnum

import msgspec

MAX_BYTES = 65536
"""A request, head and body, is no longer than this."""
MAX_HEAD_BYTES = 8192
"""And its request line and header fields no longer than this."""


class Method(StrEnum):
    """The methods that are understood."""

    GET = "GET"
    POST = "POST"


class AdminRequest(msgspec.Struct, frozen=True):
    """A whole request. `path` has no query; `host` is the Host field without its port, lower case."""

    method: Method
    path: str
    query: dict[str, str]
    host: str | None
    body: bytes


class NeedMore(msgspec.Struct, frozen=True):
    """The request is not complete; it has `total` bytes in all, at least."""

    total: int


class BadRequest(ValueError):  # noqa: N818 - the name of the status that answers it
    """Not a request that is understood. `status` answers it; the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,2047}) HTTP/1\.[01]")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*+([\t -~\x80-\xff]*+)")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(?::[0-9]{1,5})?")


def parse(data: bytes) -> AdminRequest | NeedMore:
    """Read the request that `data` is or begins. Raises `BadRequest`."""
    if len(data) > MAX_BYTES:
        raise BadRequest(413, f"a request has at most {MAX_BYTES} bytes")
    head, end, body = data.partition(b"\r\n\r\n")
    if len(head) > MAX_HEAD_BYTES:
        raise BadRequest(431, f"request line and header fields have at most {MAX_HEAD_BYTES} bytes")
    if not end:
        return NeedMore(len(data) + 1)
    line, *fields = head.split(b"\r\n")
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise BadRequest(400, "the request line is not `METHOD /path HTTP/1.1`")
    method = found[1].decode()
    if method not in Method.__members__:
        raise BadRequest(405, f"method {method} is not one of {', '.join(Method)}")
    values = _fields(fields)
    if "transfer-encoding" in values:
        raise BadRequest(411, "send a Content-Length, not a Transfer-Encoding")
    length = _length(values.get("content-length", "0"))
    total = len(head) + len(end) + length
    if total > MAX_BYTES:
        raise BadRequest(413, f"a request has at most {MAX_BYTES} bytes")
    if len(body) < length:
        return NeedMore(total)
    path, _, query = found[2].decode().partition("?")
    return AdminRequest(Method(method), path, _query(query), _host(values.get("host")), body[:length])


def _fields(lines: list[bytes]) -> dict[str, str]:
    """Fields by lower-case name; those that decide anything may be there only once."""
    values: dict[str, str] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise BadRequest(400, "a header field is not `Name: value`")
        name = found[1].decode().lower()
        if name in values and name in ("host", "content-length", "transfer-encoding"):
            raise BadRequest(400, f"{name} is there twice")
        values[name] = found[2].rstrip(b" \t").decode("latin-1")
    return values


def _length(text: str) -> int:
    if re.fullmatch("[0-9]{1,9}", text) is None:
        raise BadRequest(400, "Content-Length is not a number of bytes")
    return int(text)


def _host(value: str | None) -> str | None:
    if value is None:
        return None
    found = _HOST.fullmatch(value.lower())
    if found is None:
        raise BadRequest(400, "Host is not a name or an address")
    return found[1]


def _query(text: str) -> dict[str, str]:
    """Parameters of plain words; nothing here needs percent-encoding."""
    pairs = (pair.partition("=") for pair in text.split("&") if pair)
    return {name: value for name, _, value in pairs}
