"""What a client speaks, told from its first bytes; and the host that the head of an HTTP/1 request names."""

import re
from enum import StrEnum

from weir_sidecar.wire.clienthello import NeedMore
from weir_sidecar.wire.hostname import hostname

MAX_HEAD = 65536
"""No more than this of a request's head is waited for or read."""

_TLS = b"\x16\x03"  # RFC 8446 section 5.1: a handshake record
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4
_HTTP1 = b"HTTP/1."
# As much of a request line (RFC 9112 section 3) as is there, up to the version. Servers skip empty lines before it and
# accept more than one space, so both count as HTTP here: what a server would answer must not pass as opaque.
_REQUEST_LINE = re.compile(
    rb"""
    [\r\n]*
    (?: [!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}                  # the method is a token; none registered is longer than 17
        (?: [\ \t]+ [^\x00-\x20\x7f]*                     # the target
            (?: [\ \t]+ (?P<version> [^\r\n]{0,7}) )? )? )?
    """,
    re.VERBOSE,
)
_HEAD_END = re.compile(rb"\n\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_AUTHORITY = re.compile(rb"([^:]*)(?::[0-9]*)?")
_AUTHORITY_END = re.compile(rb"[/?#]")


class Kind(StrEnum):
    """What the first bytes are. NEED_MORE: a beginning of more than one of these; all others are final."""

    TLS = "tls"
    HTTP1 = "http1"
    HTTP2 = "http2"
    OPAQUE = "opaque"
    NEED_MORE = "need_more"


def sniff(data: bytes | memoryview) -> Kind:
    """Classify the first bytes of a connection, from none to many. Never NEED_MORE at `MAX_HEAD` bytes.

    HTTP1 is `method target HTTP/1.`; a text protocol is opaque as soon as its line cannot become that.
    """
    data = bytes(data[:MAX_HEAD])
    if data.startswith(_TLS):
        return Kind.TLS
    if data.startswith(_PREFACE):
        return Kind.HTTP2
    if _TLS.startswith(data) or _PREFACE.startswith(data):
        return Kind.NEED_MORE
    line = _REQUEST_LINE.match(data)
    assert line is not None, "every part of the pattern is optional"
    version = line["version"] or b""
    if version == _HTTP1:
        return Kind.HTTP1
    unfinished = line.end() == len(data) < MAX_HEAD and _HTTP1.startswith(version)
    return Kind.NEED_MORE if unfinished else Kind.OPAQUE


def http1_host(data: bytes | memoryview) -> str | NeedMore | None:
    """The one host that a request names in its target and its Host fields: a valid DNS name, lower case, without port.

    None: no name, an address, two that differ, or a head longer than `MAX_HEAD`. RFC 9112 section 3.2 has servers refuse
    two Host fields and prefer the target's; those that do not could be reached under the other name, so neither counts.
    """
    data = bytes(data[:MAX_HEAD])
    request = data.lstrip(b"\r\n")
    end = _HEAD_END.search(request)
    if end is None:
        return NeedMore(len(data) + 1) if len(data) < MAX_HEAD else None
    line, *fields = _FOLD.sub(b" ", request[: end.start()]).split(b"\n")
    hosts = {_host(authority) for authority in (*_target_authority(line), *_host_fields(fields))}
    return hosts.pop() if len(hosts) == 1 else None


def _target_authority(line: bytes) -> tuple[bytes, ...]:
    """The authority of a target in absolute form, or in authority form after CONNECT (RFC 9112 section 3.2)."""
    words = line.split()
    if len(words) != 3:
        return ()
    method, target, _ = words
    if method == b"CONNECT":
        return (target,)
    scheme, found, rest = target.partition(b"://")
    if not found or b"/" in scheme:
        return ()
    authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    return (authority.rpartition(b"@")[2],)


def _host_fields(fields: list[bytes]) -> list[bytes]:
    """The values of all Host fields; space before the colon is an error that some servers overlook."""
    split = (field.partition(b":") for field in fields)
    return [value.strip() for name, _, value in split if name.strip().lower() == b"host"]


def _host(authority: bytes) -> str | None:
    match = _AUTHORITY.fullmatch(authority)
    return None if match is None else hostname(match[1])
