"""What was recorded of requests and answers, as exports need it."""

import base64
import zlib

from msgspec import UNSET

from weir_sidecar.contract.request import REDACTED, LoggedBody, LoggedMessage, RequestRecord, Scheme

MOST_INFLATED = 64 << 20
"""Bytes that a body may come to: a small one can claim to be huge."""
_PORTS = {Scheme.HTTP: 80, Scheme.HTTPS: 443}
_STARRED = frozenset(
    ("accept", "accept-charset", "accept-encoding", "accept-language", "if-match", "if-none-match", "vary")
)
"""Fields that may be a `*` themselves (RFC 9110)."""


class ExportError(Exception):
    """A record says too little, or no sense, for what is to be made of it; the text says what."""


type Headers = tuple[tuple[str, str | None], ...]


def headers(message: LoggedMessage | object) -> Headers:
    """Name and value of each field that was recorded."""
    if isinstance(message, LoggedMessage) and message.headers is not UNSET:
        return message.headers
    return ()


def body(message: LoggedMessage | object) -> LoggedBody | None:
    """What was recorded of the body."""
    return message.body if isinstance(message, LoggedMessage) and isinstance(message.body, LoggedBody) else None


def header(fields: Headers, name: str) -> str | None:
    """The value of the first field of that name, which is in lower case; None: it is not known."""
    return next((value for found, value in fields if found.lower() == name and is_told(found, value)), None)


def is_told(name: str, value: str | None) -> bool:
    """Whether a field's value is the one that was sent."""
    return value is not None and (value != REDACTED or name.lower() in _STARRED)


def payload(said: str, *, in_base64: bool) -> bytes:
    """The bytes that a record tells; of what claims to be Base64 and is not, the text."""
    try:
        return base64.b64decode(said, validate=True) if in_base64 else said.encode()
    except ValueError:
        return said.encode()


def content(logged: LoggedBody) -> bytes:
    """The recorded bytes of a body, with their content coding."""
    return payload(logged.content, in_base64=logged.base64)


def decoded(logged: LoggedBody) -> bytes | None:
    """The recorded bytes without their content coding; None: it is one that is not known here."""
    raw = content(logged)
    match (logged.encoding or "identity").lower():
        case "identity":
            return raw
        case "gzip" | "x-gzip":
            return _inflated(raw, zlib.MAX_WBITS | 16)
        case "deflate":
            # RFC 9110, section 8.4.1.2: with the zlib format's head; some send it without.
            found = _inflated(raw, zlib.MAX_WBITS)
            return _inflated(raw, -zlib.MAX_WBITS) if found is None else found
        case _:
            return None


def _inflated(raw: bytes, window: int) -> bytes | None:
    try:
        return zlib.decompressobj(window).decompress(raw, MOST_INFLATED)
    except zlib.error:
        return None


def authority(request: RequestRecord, host: str) -> str:
    """The host, and the port where it is not the scheme's."""
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return bracketed if request.port == _PORTS[request.scheme] else f"{bracketed}:{request.port}"
