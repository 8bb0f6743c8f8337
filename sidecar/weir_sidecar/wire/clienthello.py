"""The ClientHello: what a TLS client says before anything is encrypted (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).

Reads a peeked prefix of a connection. The hello may be spread over records of any size (RFC 8446 section 5.1); what
follows it is not looked at. As strict as the TLS libraries are about structure, and no stricter: a hello that servers
answer must not be called malformed.
"""

import struct

import msgspec

from weir_sidecar.wire.hostname import hostname

MAX_BYTES = 65536
"""A hello that ends later than this on the wire, record headers included, is malformed."""

TLS_1_2 = 0x0303
TLS_1_3 = 0x0304

GREASE = frozenset(range(0x0A0A, 0x10000, 0x1010))
"""RFC 8701: values without a meaning, sent so that peers keep ignoring what they do not know."""

SERVER_NAME = 0
SUPPORTED_GROUPS = 10
SIGNATURE_ALGORITHMS = 13
ALPN = 16
SUPPORTED_VERSIONS = 43
ENCRYPTED_CLIENT_HELLO = 0xFE0D

_RECORD_START = b"\x16\x03"  # handshake, and the major version that every TLS record carries
_RECORD_HEADER = 5
_MAX_FRAGMENT = 1 << 14
_CLIENT_HELLO = 1
_MESSAGE_HEADER = 4
_VERSION_AND_RANDOM = 34
_MAX_SESSION_ID = 32
_HOST_NAME = 0
_two_uint16 = struct.Struct(">HH").unpack_from


class MalformedClientHello(ValueError):  # noqa: N818  (the name says what the input is)
    """These bytes are no ClientHello, and no further bytes can make them one."""


class NeedMore(msgspec.Struct, frozen=True):
    """A valid beginning. Ask again when `total` bytes, counted from the start of the connection, are there.

    `total` is a lower bound: more may be asked for then. It is above what was given, and never above the parser's limit.
    """

    total: int


class ClientHello(msgspec.Struct, frozen=True):
    """What the client offers, in the order sent. Code points are the IANA registries'; GREASE is kept unless said.

    `versions` are those of supported_versions without GREASE, or the legacy one when that extension is absent.
    `sni` is a valid DNS name in lower case without a final dot; None also when the extension held something else.
    `ech` says that the extension is there; a client that only greases it cannot be told from one that means it.
    """

    legacy_version: int
    versions: tuple[int, ...]
    ciphers: tuple[int, ...]
    extensions: tuple[int, ...]
    groups: tuple[int, ...]
    signature_algorithms: tuple[int, ...]
    sni: str | None
    alpn: tuple[bytes, ...]
    ech: bool

    @property
    def max_version(self) -> int:
        """The highest TLS version offered, as 0x0304 for TLS 1.3; 0 when only drafts and unknown ones are.

        RFC 8446 section 4.2.1: without supported_versions no more than TLS 1.2 is offered, whatever the field says.
        """
        if SUPPORTED_VERSIONS not in self.extensions:
            return min(self.legacy_version, TLS_1_2)
        return max((version for version in self.versions if version <= TLS_1_3), default=0)


def parse(data: bytes | memoryview) -> ClientHello | NeedMore:
    """Read a ClientHello from the first bytes of a connection. Raises `MalformedClientHello` and nothing else."""
    data = bytes(data)
    message = bytearray()
    length = _MESSAGE_HEADER  # of the message; of its header alone until that is there
    at = 0
    while True:
        if not _RECORD_START.startswith(data[at : at + 2]):
            raise MalformedClientHello(f"no TLS handshake record at byte {at}")
        start = at + _RECORD_HEADER
        if len(data) < start:
            return NeedMore(_within_limit(_last_byte(at, length - len(message))))
        fragment = data[at + 3] << 8 | data[at + 4]
        if not 0 < fragment <= _MAX_FRAGMENT:
            raise MalformedClientHello(f"a record of {fragment} bytes; 1 to {_MAX_FRAGMENT} are allowed")
        end = start + fragment
        before = len(message)
        message += data[start:end]
        if before < _MESSAGE_HEADER:
            length = _message_length(message)
        missing = length - before
        last = start + missing if missing <= fragment else _last_byte(end, missing - fragment)
        _within_limit(last)
        if len(message) >= length:
            return _hello(bytes(message[_MESSAGE_HEADER:length]))
        if len(data) < end:
            return NeedMore(last)
        at = end


def _last_byte(at: int, missing: int) -> int:
    """Where `missing` bytes of the message end if the next record starts `at` and records are as large as can be."""
    return at + missing + _RECORD_HEADER * -(-missing // _MAX_FRAGMENT)


def _within_limit(total: int) -> int:
    if total > MAX_BYTES:
        raise MalformedClientHello(f"larger than {MAX_BYTES} bytes")
    return total


def _message_length(message: bytearray) -> int:
    """The length of the handshake message with its header, as far as the header is there."""
    if message and message[0] != _CLIENT_HELLO:
        raise MalformedClientHello(f"handshake message of type {message[0]}, not a ClientHello")
    if len(message) < _MESSAGE_HEADER:
        return _MESSAGE_HEADER
    return _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER])


def _hello(body: bytes) -> ClientHello:
    session_id, at = _vector8(body, _VERSION_AND_RANDOM, "session id")
    if len(session_id) > _MAX_SESSION_ID:
        raise MalformedClientHello(f"session id of {len(session_id)} bytes")
    ciphers, at = _vector16(body, at, "cipher suites")
    compression, at = _vector8(body, at, "compression methods")
    if not compression:
        raise MalformedClientHello("no compression method")
    legacy_version = body[0] << 8 | body[1]
    extensions = _extensions(body, at)
    versions = extensions.get(SUPPORTED_VERSIONS)
    server_name = extensions.get(SERVER_NAME)
    protocols = extensions.get(ALPN)
    return ClientHello(
        legacy_version=legacy_version,
        versions=(legacy_version,) if versions is None else _versions(versions),
        ciphers=_numbers(ciphers, "cipher suites"),
        extensions=tuple(extensions),
        groups=_number_list(extensions.get(SUPPORTED_GROUPS), "supported groups"),
        signature_algorithms=_number_list(extensions.get(SIGNATURE_ALGORITHMS), "signature algorithms"),
        sni=None if server_name is None else _sni(server_name),
        alpn=() if protocols is None else _alpn(protocols),
        ech=ENCRYPTED_CLIENT_HELLO in extensions,
    )


def _extensions(body: bytes, at: int) -> dict[int, bytes]:
    """Extension type to data, in the order sent; TLS 1.2 and older may send none at all (RFC 5246 section 7.4.1.2)."""
    if at == len(body):
        return {}
    block, at = _vector16(body, at, "extensions")
    _nothing_after(body, at, "extensions")
    found: dict[int, bytes] = {}
    at = 0
    while at < len(block):
        if at + 4 > len(block):
            raise MalformedClientHello("an extension ends early")
        kind, length = _two_uint16(block, at)
        at += 4 + length
        if at > len(block):
            raise MalformedClientHello(f"extension {kind} ends early")
        if kind in found:
            raise MalformedClientHello(f"extension {kind} comes twice")
        found[kind] = block[at - length : at]
    return found


def _versions(data: bytes) -> tuple[int, ...]:
    """RFC 8446 section 4.2.1."""
    versions, at = _vector8(data, 0, "supported versions")
    _nothing_after(data, at, "supported versions")
    return tuple(version for version in _numbers(versions, "supported versions") if version not in GREASE)


def _number_list(data: bytes | None, what: str) -> tuple[int, ...]:
    """An extension that is one list of two-byte code points (RFC 8446 sections 4.2.3 and 4.2.7)."""
    if data is None:
        return ()
    numbers, at = _vector16(data, 0, what)
    _nothing_after(data, at, what)
    return _numbers(numbers, what)


def _sni(data: bytes) -> str | None:
    """RFC 6066 section 3: a list with one host name; names of other types, of which there are none yet, are skipped."""
    names, at = _vector16(data, 0, "server name")
    _nothing_after(data, at, "server name")
    if not names:
        raise MalformedClientHello("server name: an empty list")
    host: bytes | None = None
    at = 0
    while at < len(names):
        kind = names[at]
        name, at = _vector16(names, at + 1, "server name")
        if kind != _HOST_NAME:
            continue
        if not name:
            raise MalformedClientHello("server name: an empty name")
        if host is not None:
            raise MalformedClientHello("server name: more than one host name")
        host = name
    return None if host is None else hostname(host)


def _alpn(data: bytes) -> tuple[bytes, ...]:
    """RFC 7301 section 3.1."""
    names, at = _vector16(data, 0, "ALPN")
    _nothing_after(data, at, "ALPN")
    protocols: list[bytes] = []
    at = 0
    while at < len(names):
        protocol, at = _vector8(names, at, "ALPN")
        protocols.append(protocol)
    if not protocols or b"" in protocols:
        raise MalformedClientHello("ALPN: an empty list or an empty name")
    return tuple(protocols)


def _vector8(data: bytes, at: int, what: str) -> tuple[bytes, int]:
    """The vector at `at` with a length of one byte (RFC 8446 section 3.4), and where it ends."""
    start = at + 1
    if start > len(data):
        raise MalformedClientHello(f"{what}: missing")
    return _slice(data, start, start + data[at], what)


def _vector16(data: bytes, at: int, what: str) -> tuple[bytes, int]:
    """The vector at `at` with a length of two bytes, and where it ends."""
    start = at + 2
    if start > len(data):
        raise MalformedClientHello(f"{what}: missing")
    return _slice(data, start, start + (data[at] << 8 | data[at + 1]), what)


def _slice(data: bytes, start: int, end: int, what: str) -> tuple[bytes, int]:
    if end > len(data):
        raise MalformedClientHello(f"{what}: {end - start} bytes announced, {len(data) - start} are there")
    return data[start:end], end


def _nothing_after(data: bytes, at: int, what: str) -> None:
    if at != len(data):
        raise MalformedClientHello(f"{what}: {len(data) - at} bytes after the end")


def _numbers(data: bytes, what: str) -> tuple[int, ...]:
    """Two-byte code points, at least one."""
    count, odd = divmod(len(data), 2)
    if odd or not count:
        raise MalformedClientHello(f"{what}: {len(data)} bytes are no list of two-byte values")
    return struct.unpack(f">{count}H", data)
