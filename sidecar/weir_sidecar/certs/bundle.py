"""The merged bundle: the distribution's public roots and the pod's CA, for programs that read PEM files.

A bundle with the CA alone would break every flow that is passed through.
"""

import base64
import binascii
import os
import re
from collections.abc import Callable, Iterable

# Where distributions keep the bundle that their programs read: Debian and Alpine, Fedora and RHEL (the file and its
# older names), openSUSE, and the name that OpenSSL itself has for it.
SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/lib/ssl/cert.pem",
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
)

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


class BundleError(ValueError):
    """A PEM bundle that cannot be read; the text says which block and why."""


def system_bundles(candidates: Iterable[str] = SYSTEM_BUNDLES) -> tuple[str, ...]:
    """The bundles this machine has, links followed, each once, the first the one to read the roots from."""
    found = (os.path.realpath(path) for path in candidates if os.path.isfile(path))  # noqa: PTH113 - see pyproject
    return tuple(dict.fromkeys(found))


def system_roots(bundles: tuple[str, ...], read: Callable[[str], bytes] | None = None) -> bytes:
    """The PEM text of the system's roots: the first bundle that holds any; empty when none does."""
    for path in bundles:
        data = (read or _read)(path)
        if _CERTIFICATE.search(data):
            return data
    return b""


def merge(roots: bytes, authority: bytes) -> bytes:
    """The system's roots with the pod's CA at the end, each PEM text on lines of its own."""
    certificates(authority)
    return roots.rstrip(b"\n") + b"\n" * bool(roots) + authority.rstrip(b"\n") + b"\n"


def certificates(pem: bytes) -> tuple[bytes, ...]:
    """The certificates of a PEM text in DER, in order. Raises `BundleError` when there is none or one is not base64."""
    blocks = _CERTIFICATE.findall(pem)
    if not blocks:
        raise BundleError("no '-----BEGIN CERTIFICATE-----' block found in the PEM text")
    return tuple(_der(number, block) for number, block in enumerate(blocks, 1))


def united(*texts: bytes) -> tuple[bytes, ...]:
    """The certificates of several PEM texts in DER, each once, in order; a text may hold none. Raises `BundleError`."""
    found = (der for text in texts if _CERTIFICATE.search(text) for der in certificates(text))
    return tuple(dict.fromkeys(found))


def to_pem(certificates_der: Iterable[bytes]) -> bytes:
    """Certificates in DER as PEM text (RFC 7468)."""
    return b"".join(map(_block, certificates_der))


def _block(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = b"\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"


def _der(number: int, block: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(block.split()), validate=True)
    except binascii.Error as error:
        raise BundleError(f"certificate {number} of the PEM text is not base64: {error}") from error


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib would be a heavy import for the sidecar
        return file.read()
