"""A Java trust store in the JKS format, which every Java reads with no password and with the customary one.

Java tells JKS from PKCS12 by the first bytes whatever `keystore.type` says (JEP 229), and the distributions' own
`cacerts` are JKS. A PKCS12 store would not do: Java takes one either without a password or with "changeit", programs
ask in both ways. The format is the one of `sun.security.provider.JavaKeyStore` in OpenJDK.
"""

import hashlib
import struct
from collections.abc import Iterable

PASSWORD = "changeit"  # noqa: S105 - public by custom: it only guards against damage

_MAGIC = 0xFEEDFEED
_VERSION = 2
_TRUSTED_CERTIFICATE = 2
_SECRET = PASSWORD.encode("utf-16-be")
_WHITENER = b"Mighty Aphrodite"  # Part of the format's digest.


def serialize(certificates: Iterable[bytes], created: float) -> bytes:
    """The trust store of these DER certificates, dated `created` (seconds since 1970)."""
    entries = [_entry(f"root-{number:04d}", der, created) for number, der in enumerate(certificates, 1)]
    body = struct.pack(">III", _MAGIC, _VERSION, len(entries)) + b"".join(entries)
    # SHA-1 is the format's choice and a check against damage, not a signature.
    digest = hashlib.sha1(_SECRET + _WHITENER + body, usedforsecurity=False)
    return body + digest.digest()


def _entry(alias: str, der: bytes, created: float) -> bytes:
    head = struct.pack(">I", _TRUSTED_CERTIFICATE) + _text(alias) + struct.pack(">q", int(created * 1000))
    return head + _text("X.509") + struct.pack(">I", len(der)) + der


def _text(value: str) -> bytes:
    """Java's `writeUTF`, which for ASCII is a length and the bytes."""
    return struct.pack(">H", len(value)) + value.encode("ascii")
