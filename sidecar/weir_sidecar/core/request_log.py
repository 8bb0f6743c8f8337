"""What records tell of requests, by the policy's `logging`: which requests, and which of their fields, values and bodies.

Pure; compiled once for each config. What is redacted here is nowhere else: records are all that leaves the sidecar.
"""

import re
from collections.abc import Callable, Sequence
from zlib import crc32

from msgspec import UNSET, UnsetType

from weir_sidecar.contract.request import REDACTED, RequestDecision, RequestRecord
from weir_sidecar.contract.request_log import HeaderLog, QueryLog, RequestLog
from weir_sidecar.core.http_path import unescape

type Fields = Sequence[tuple[bytes, bytes]]
"""Header fields, names in any case, in their order, without HTTP/2's pseudo-header fields."""

type _Tell = Callable[[bytes], str]
type ToldFields = tuple[tuple[str, str | None], ...]

_SECRET = re.compile(rb"auth|cookie|credential|jwt|key|passw|secret|session|signature|token", re.IGNORECASE)
"""In the name of a header field: its value is, or may be, what somebody is let in with. Rather one too many."""
_URLS = frozenset((b"referer", b"location", b"content-location"))
"""Header fields whose values are URLs, relative ones too (RFC 9110, sections 8.7, 10.1.3 and 10.2.2)."""
_URL = re.compile(rb"<?(?:[a-zA-Z][a-zA-Z0-9+.-]*://|/)")
_USER = re.compile(rb"(?<=://)[^/?#@]*@")
_QUERY_VALUE = re.compile(rb"(?:(?<=&)|^)(?:([^&=]*=)[^&]*|[^&]+)")
_SERVER_ERROR = 500
_MOST_KNOWN, _LONGEST_KNOWN = 512, 64
"""Names of header fields that are remembered, and the bytes of one."""


class LogRules:
    """The rules of one config."""

    __slots__ = (
        "_content_types",
        "_log",
        "_names",
        "_redacted",
        "_redacted_query",
        "bodies",
        "captures",
        "tracing",
        "web_socket",
    )

    def __init__(self, log: RequestLog | UnsetType) -> None:
        log = RequestLog() if isinstance(log, UnsetType) else log
        self._log = log
        self._redacted = frozenset(name.encode() for name in log.redact_headers)
        self._redacted_query = frozenset(name.encode() for name in log.redact_query)
        self._names: dict[bytes, tuple[str, _Tell]] = {}
        """Of header fields that were met: as they are told, and what is told of their values."""
        self._content_types = tuple(one.encode() for one in log.bodies.content_types)
        self.bodies = log.bodies
        self.web_socket = log.web_socket
        self.tracing = log.tracing
        self.captures = log.headers is not HeaderLog.NONE or log.bodies.request or log.bodies.response
        """Whether more is told of messages than the one line."""

    def path(self, path: bytes, query: bytes | None) -> str:
        """A path as records tell it."""
        text = path if query is None else path + b"?" + self._query(query)
        return text.decode("utf-8", "backslashreplace")

    def headers(self, fields: Fields, *, secret: bool) -> ToldFields | UnsetType:
        """Header fields as records tell them. `secret`: a credential is, or may be, among the values."""
        if self._log.headers is HeaderLog.NONE:
            return UNSET
        if secret or self._log.headers is HeaderLog.NAMES:
            return tuple((_text(name), None) for name, _ in fields)
        names = self._names
        told: list[tuple[str, str | None]] = []
        for name, value in fields:
            text, tell = names.get(name) or self._name(name)
            told.append((text, tell(value)))
        return tuple(told)

    def wants_body(self, fields: Fields) -> bool:
        """Whether a body is of a type that is asked for."""
        if not self._content_types:
            return True
        kind = field_of(fields, b"content-type").partition(b";")[0].strip().lower()
        return any(kind == one or (one.endswith(b"/*") and kind.startswith(one[:-1])) for one in self._content_types)

    def keeps(self, record: RequestRecord) -> bool:
        """Whether there is to be a record: by chance, or as it must."""
        return (
            self._log.sample >= 1
            or record.decision is RequestDecision.DENY
            or record.error is not None
            or (record.status or _SERVER_ERROR) >= _SERVER_ERROR
            or self.samples(record.flow, record.number)
        )

    def samples(self, flow: str, number: int) -> bool:
        """Whether there is to be a record in any case: by chance, which the flow's id and the request's number decide."""
        return crc32(b"%b/%d" % (flow.encode(), number)) < self._log.sample * 2**32

    def _name(self, name: bytes) -> tuple[str, _Tell]:
        """How a header field of this name is told; the next time it is known."""
        low = name.lower()
        tell: _Tell = _text
        if low in self._redacted:
            tell = _redacted
        elif self._log.headers is HeaderLog.REDACTED:
            tell = _redacted if _SECRET.search(low) else _url if low in _URLS else _text_or_url
        known = _text(name), tell
        if len(name) <= _LONGEST_KNOWN:
            if len(self._names) >= _MOST_KNOWN:
                self._names.clear()
            self._names[name] = known
        return known

    def _query(self, query: bytes) -> bytes:
        if self._log.query is QueryLog.REDACTED:
            return _QUERY_VALUE.sub(rb"\1*", query)
        if not self._redacted_query:
            return query
        return b"&".join(map(self._pair, query.split(b"&")))

    def _pair(self, pair: bytes) -> bytes:
        name, mark, _ = pair.partition(b"=")
        return name + b"=*" if mark and parameter(name) in self._redacted_query else pair


def parameter(text: bytes) -> bytes:
    """The name or value of a query's parameter, decoded (WHATWG URL, section 5.1)."""
    return unescape(text.replace(b"+", b" "))


def field_of(fields: Fields, name: bytes) -> bytes:
    """The value of the first field of this name; empty where there is none."""
    return next((value for found, value in fields if found.lower() == name), b"")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _redacted(_: bytes) -> str:
    return REDACTED


def _text_or_url(value: bytes) -> str:
    if (b"?" in value or b"#" in value or b"@" in value) and _URL.match(value):
        return _url(value)
    return value.decode("utf-8", "backslashreplace")


def _url(url: bytes) -> str:
    """A URL without the values of its query, and without its user and fragment, in which secrets travel too."""
    rest, mark, fragment = url.partition(b"#")
    before, question, query = rest.partition(b"?")
    told = _USER.sub(b"*@", before) + question + _QUERY_VALUE.sub(rb"\1*", query)
    return _text(told + (mark + b"*" if fragment else mark))
