"""Makes ClientHellos of any shape, right and wrong, for tests and as seeds for fuzzing."""

from collections.abc import Iterable


def vector8(data: bytes) -> bytes:
    return len(data).to_bytes(1) + data


def vector16(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


def numbers(values: Iterable[int]) -> bytes:
    return b"".join(value.to_bytes(2) for value in values)


def extension(kind: int, data: bytes = b"") -> bytes:
    return kind.to_bytes(2) + vector16(data)


def server_name(name: bytes) -> bytes:
    return extension(0, vector16(b"\0" + vector16(name)))


def alpn(*protocols: bytes) -> bytes:
    return extension(16, vector16(b"".join(vector8(protocol) for protocol in protocols)))


def supported_versions(*versions: int) -> bytes:
    return extension(43, vector8(numbers(versions)))


def number_list(kind: int, *values: int) -> bytes:
    return extension(kind, vector16(numbers(values)))


def message(
    *extensions: bytes,
    version: int = 0x0303,
    session_id: bytes = b"",
    ciphers: bytes = b"\x13\x01",
    compression: bytes = b"\0",
    tail: bytes | None = None,
) -> bytes:
    """The handshake message. `tail` stands for the extension block, its length included, when it is to be wrong."""
    block = vector16(b"".join(extensions)) if tail is None else tail
    body = version.to_bytes(2) + bytes(32) + vector8(session_id) + vector16(ciphers) + vector8(compression) + block
    return b"\x01" + len(body).to_bytes(3) + body


def record(fragment: bytes, kind: int = 22, version: int = 0x0301) -> bytes:
    return kind.to_bytes(1) + version.to_bytes(2) + vector16(fragment)


def records(handshake: bytes, sizes: Iterable[int] = ()) -> bytes:
    """The message in records of these sizes; what is left goes into records as large as can be."""
    out = b""
    for size in sizes:
        if handshake:
            out += record(handshake[:size])
            handshake = handshake[size:]
    while handshake:
        out += record(handshake[:16384])
        handshake = handshake[16384:]
    return out


def client_hello(*extensions: bytes) -> bytes:
    """A hello as it is on the wire, in as few records as can be."""
    return records(message(*extensions))
