"""JA4: a fingerprint of the TLS library and its settings, from the parsed ClientHello.

Base JA4 only, written from FoxIO's published description (https://github.com/FoxIO-LLC/ja4,
technical_details/JA4.md; BSD 3-Clause). GREASE (RFC 8701) is ignored everywhere.
"""

import struct
from collections.abc import Iterable
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


def ja4(hello: ClientHello, transport: str = "t") -> str:
    """The fingerprint, as in `t13d1516h2_8daaf6152771_e5627efa2ab1`. `transport`: t for TCP, q for QUIC, d for DTLS."""
    ciphers = [cipher for cipher in hello.ciphers if cipher not in GREASE]
    extensions = [extension for extension in hello.extensions if extension not in GREASE]
    version = _VERSIONS.get(max(hello.versions, default=0), "00")
    named = "d" if SERVER_NAME in extensions else "i"
    counts = f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}"
    hashed = sorted(extension for extension in extensions if extension not in _IN_FIRST_PART)
    algorithms = _hex(algorithm for algorithm in hello.signature_algorithms if algorithm not in GREASE)
    tail = f"{_hex(hashed)}_{algorithms}" if algorithms else _hex(hashed)
    return f"{transport}{version}{named}{counts}{_alpn(hello.alpn)}_{_hash(_hex(sorted(ciphers)))}_{_hash(tail)}"


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
