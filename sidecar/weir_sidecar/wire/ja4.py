"""JA4: a fingerprint of the TLS library and its settings, from the parsed ClientHello.

Base JA4 only, written from FoxIO's published description (https://github.com/FoxIO-LLC/ja4,
technical_details/JA4.md; BSD 3-Clause). GREASE (RFC 8701) is ignored everywhere.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

from weir_sidecar.wire.clienthello import ALPN, GREASE, SERVER_NAME, ClientHello

_VERSIONS = {
    0x0304: "13",
    0x0303: "12",
    0x0302: "11",
    0x0301: "10",
    0x0300: "s3",
    0x0002: "s2",
    0xFEFF: "d1",
    0xFEFD: "d2",
    0xFEFC: "d3",
}
_IN_FIRST_PART = frozenset((SERVER_NAME, ALPN))
_NOTHING = "000000000000"
_USUAL = 256
"""Ciphers, extensions and signature algorithms together, of a client that means well: browsers send 50."""


def ja4(hello: ClientHello, transport: str = "t") -> str:
    """The fingerprint, as in `t13d1516h2_8daaf6152771_e5627efa2ab1`. `transport`: t for TCP, q for QUIC, d for DTLS."""
    version = _VERSIONS.get(max(hello.versions, default=0), "00")
    known = len(hello.ciphers) + len(hello.extensions) + len(hello.signature_algorithms) <= _USUAL
    rest = (_remembered if known else _counts_and_hashes)(hello.ciphers, hello.extensions, hello.signature_algorithms)
    named = "d" if SERVER_NAME in hello.extensions else "i"
    return f"{transport}{version}{named}{rest[0]}{_alpn(hello.alpn)}_{rest[1]}"


def _counts_and_hashes(
    ciphers: tuple[int, ...], extensions: tuple[int, ...], algorithms: tuple[int, ...]
) -> tuple[str, str]:
    """What costs: how many ciphers and extensions there are, and the hashes of their lists."""
    ours = sorted(cipher for cipher in ciphers if cipher not in GREASE)
    kinds = [extension for extension in extensions if extension not in GREASE]
    tail = _hex(sorted(extension for extension in kinds if extension not in _IN_FIRST_PART))
    if signatures := _hex(algorithm for algorithm in algorithms if algorithm not in GREASE):
        tail = f"{tail}_{signatures}"
    return f"{min(len(ours), 99):02}{min(len(kinds), 99):02}", f"{_hash(_hex(ours))}_{_hash(tail)}"


_remembered = lru_cache(256)(_counts_and_hashes)
"""Clients say the same again and again. What is longer than usual is not kept: a hello has room for 30,000 of each."""


def _alpn(protocols: tuple[bytes, ...]) -> str:
    """The first and last character of the first protocol, or of its hex form when either is not alphanumeric."""
    if not protocols or not protocols[0]:
        return "00"
    first = protocols[0]
    ends = first[:1] + first[-1:]
    if ends.isalnum():
        return ends.decode("ascii")
    text = first.hex()
    return text[0] + text[-1]


def _hex(values: Iterable[int]) -> str:
    numbers = tuple(values)
    return struct.pack(f">{len(numbers)}H", *numbers).hex(",", 2) if numbers else ""


def _hash(text: str) -> str:
    return sha256(text.encode("ascii")).hexdigest()[:12] if text else _NOTHING
