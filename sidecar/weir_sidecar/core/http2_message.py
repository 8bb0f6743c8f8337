"""HTTP messages in HTTP/2's terms (RFC 9113, section 8): what a request asks for, and what a refusal answers.

A request that servers may read in more than one way is malformed, and nobody is asked about it: it must not go on.
"""

import re
from collections.abc import Sequence

import msgspec

from weir_sidecar.core.http_policy import Edits, RequestFacts, RequestVerdict
from weir_sidecar.wire.hostname import authority_host
from weir_sidecar.wire.hpack import Block, Field

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")  # a token (RFC 9110, section 5.6.2) in lower case
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]")
_PATH = re.compile(rb"/[^\x00-\x20\x7f#]*|\*")
_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
_OF_CONNECTIONS = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
"""Section 8.2.2: what an intermediary to HTTP/1.1 would obey."""

_GRPC_STATUS = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""What gRPC clients take an HTTP status for (grpc/doc/http-grpc-status-mapping.md); UNKNOWN for all others."""
_GRPC_UNKNOWN = 2


def read_request(block: Block) -> RequestFacts | None:
    """What a request asks for; None: its header list is malformed (sections 8.1.1 to 8.3.1, 8.5; RFC 8441)."""
    fields = block.fields
    pseudo: dict[bytes, bytes] = {}
    count = 0
    for name, value in fields:
        if name[:1] != b":":
            break
        if name not in _PSEUDO or name in pseudo:
            return None
        pseudo[name] = value
        count += 1
    regular = fields[count:]
    authority = _authority(pseudo, regular)
    target = _target(pseudo)
    if authority is None or target is None or not _are_fields(regular) or _has_bad_value(fields[:count]):
        return None
    path, _, query = target.partition(b"?")
    host = authority_host(authority) if authority else None
    if authority and host is None:
        return None
    asked = query if b"?" in target else None
    return RequestFacts(pseudo[b":method"], host, path, asked, regular, pseudo.get(b":protocol", b""))


def are_trailers(block: Block) -> bool:
    """Whether a header list may end a message: no pseudo-header fields (section 8.1)."""
    return _are_fields(block.fields)


def status_of(block: Block) -> int | None:
    """The status of an answer; None where it has none that can be read."""
    if not block.fields or block.fields[0][0] != b":status":
        return None
    value = block.fields[0][1]
    return int(value) if len(value) == 3 and value.isdigit() else None


def edited(block: Block, edits: Edits) -> tuple[Field, ...]:
    """The fields after a rule's changes; pseudo-header fields stay, and stay first."""
    count = sum(name[:1] == b":" for name, _ in block.fields)
    return (*block.fields[:count], *edits.apply(block.fields[count:]))


class Refusal(msgspec.Struct, frozen=True):
    """An answer of our own."""

    status: int
    fields: tuple[Field, ...]
    body: bytes

    def without_body(self) -> "Refusal":
        """The same, for who has no room for more."""
        return Refusal(self.status, tuple(field for field in self.fields if field[0] != b"content-length"), b"")


def refusal(facts: RequestFacts, verdict: RequestVerdict) -> Refusal:
    """What a denied request is answered: as its rule says, and to gRPC in gRPC's own terms (a Trailers-Only response)."""
    if _is_grpc(facts.fields):
        code = _GRPC_STATUS.get(verdict.status, _GRPC_UNKNOWN)
        fields: tuple[Field, ...] = (
            (b":status", b"200"),
            (b"content-type", b"application/grpc"),
            (b"grpc-status", b"%d" % code),
            (b"grpc-message", _percent_encoded(verdict.body.rstrip())),
        )
        return Refusal(200, fields, b"")
    body = verdict.body
    fields = (
        (b":status", b"%d" % verdict.status),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
    )
    return Refusal(verdict.status, fields, b"" if facts.method == b"HEAD" else body)


def _authority(pseudo: dict[bytes, bytes], fields: Sequence[Field]) -> bytes | None:
    """What names the host: empty where nothing does, None where more than one name is given."""
    hosts = [value for name, value in fields if name == b"host"]
    authority = pseudo.get(b":authority")
    if authority is None:
        return hosts[0] if len(hosts) == 1 else None if hosts else b""
    if len(hosts) > 1 or (hosts and hosts[0].lower() != authority.lower()):
        return None
    return authority or None


def _target(pseudo: dict[bytes, bytes]) -> bytes | None:
    """The path with its query, empty for CONNECT; None where the pseudo-header fields do not make a request."""
    method = pseudo.get(b":method", b"")
    if not _METHOD.fullmatch(method):
        return None
    path, scheme = pseudo.get(b":path"), pseudo.get(b":scheme")
    if method == b"CONNECT" and b":protocol" not in pseudo:
        return b"" if path is None and scheme is None and b":authority" in pseudo else None
    if method != b"CONNECT" and b":protocol" in pseudo:
        return None
    if path is None or not scheme or not _PATH.fullmatch(path) or (path == b"*" and method != b"OPTIONS"):
        return None
    return path


def _are_fields(fields: Sequence[Field]) -> bool:
    for name, value in fields:
        if not _NAME.fullmatch(name) or name in _OF_CONNECTIONS:
            return False
        if name == b"te" and value.lower() != b"trailers":
            return False
    return not _has_bad_value(fields)


def _has_bad_value(fields: Sequence[Field]) -> bool:
    return _BAD_VALUE.search(b"".join([value for _, value in fields])) is not None


def _is_grpc(fields: Sequence[Field]) -> bool:
    return any(name == b"content-type" and value.startswith(b"application/grpc") for name, value in fields)


def _percent_encoded(text: bytes) -> bytes:
    """As grpc-message wants it (PROTOCOL-HTTP2.md)."""
    return b"".join(b"%c" % byte if 0x20 <= byte < 0x7F and byte != 0x25 else b"%%%02X" % byte for byte in text)
