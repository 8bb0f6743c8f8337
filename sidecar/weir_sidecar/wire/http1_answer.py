"""Answers that the sidecar gives itself, in HTTP/1.1 (RFC 9110, section 15)."""

from weir_sidecar.wire.http1 import RequestHead

_REASONS = {
    400: b"Bad Request", 401: b"Unauthorized", 402: b"Payment Required", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 407: b"Proxy Authentication Required", 409: b"Conflict", 410: b"Gone",
    418: b"I'm a Teapot", 421: b"Misdirected Request", 422: b"Unprocessable Content", 429: b"Too Many Requests",
    431: b"Request Header Fields Too Large", 451: b"Unavailable For Legal Reasons", 500: b"Internal Server Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
}  # fmt: skip
_BODILESS = frozenset((204, 304))


def our_answer(status: int, body: bytes, method: bytes, *, last: bool) -> bytes:
    """An answer to a request of `method`. `last`: the connection ends after it."""
    reason = _REASONS.get(status, b"")
    close = b"Connection: close\r\n" if last else b""
    head = b"HTTP/1.1 %d %b\r\n" % (status, reason)
    if status in _BODILESS:
        return head + close + b"\r\n"
    fields = b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n" % len(body)
    return head + fields + close + b"\r\n" + (b"" if method == b"HEAD" else body)


def wants_close(head: RequestHead) -> bool:
    """Whether the client expects the connection to end after the answer (RFC 9112, section 9.3)."""
    if head.minor == 0:
        return True
    return any(name.lower() == b"connection" and b"close" in value.lower() for name, value in head.fields())
