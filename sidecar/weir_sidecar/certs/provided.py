"""A CA that somebody provides, as a Secret holds it: checked before a pod depends on it.

The keys of the Secret are those of kubernetes.io/tls and of cert-manager. `tls.crt` is the CA that signs leaves, then the
intermediates that lead from it to its root; `ca.crt` has what applications are to trust: the roots, while one is replaced
by another both of them.
"""

import datetime as dt
from itertools import pairwise

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from weir_sidecar.certs.authority import Authority, Key

CERTIFICATE = "tls.crt"
KEY = "tls.key"
TRUSTED = "ca.crt"
NAMES = (CERTIFICATE, KEY, TRUSTED)

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSA_BITS = 2048
_KEYS = f"an unencrypted PEM key, RSA of {_RSA_BITS} bits or more, or ECDSA on P-256, P-384 or P-521"
_CERTIFICATES = "PEM certificates, '-----BEGIN CERTIFICATE-----'"


class ProvidedError(ValueError):
    """A CA that cannot be used. The text begins with the Secret's key, says what was found and what is allowed."""


class Provided(msgspec.Struct, frozen=True):
    """A CA that can be used, and the certificates by which applications trust it."""

    authority: Authority
    trusted: tuple[x509.Certificate, ...]


def read(files: dict[str, bytes], now: dt.datetime) -> Provided:
    """Read the Secret's data. Raises `ProvidedError`."""
    for name in NAMES:
        if name not in files:
            raise ProvidedError(f"{name}: the Secret has no such key; it needs {CERTIFICATE}, {KEY} and {TRUSTED}")
    signer, *chain = _certificates(CERTIFICATE, files[CERTIFICATE])
    _check_signer(signer, now)
    _check_chain((signer, *chain), now)
    key = _key(files[KEY])
    if key.public_key() != signer.public_key():
        raise ProvidedError(
            f"{KEY}: found a key that does not fit the first certificate of {CERTIFICATE} ({_named(signer)}); it must be"
            " the key of that CA"
        )
    trusted = _certificates(TRUSTED, files[TRUSTED])
    if not any(_vouches(root, one) for root in trusted for one in (signer, *chain)):
        raise ProvidedError(
            f"{TRUSTED}: found {', '.join(map(_named, trusted))}, none of which has issued what is in {CERTIFICATE}"
            f" ({_named(signer)}): nobody would trust it; put its root there, beside others if you like"
        )
    return Provided(Authority(key, signer, tuple(chain)), trusted)


def _certificates(name: str, text: bytes) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(text))
    except ValueError as error:
        raise ProvidedError(f"{name}: found no readable certificate ({error}); it needs {_CERTIFICATES}") from error


def _check_signer(signer: x509.Certificate, now: dt.datetime) -> None:
    _check_time(signer, now)
    try:
        extensions = signer.extensions
        is_authority = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        is_authority = False
    if not is_authority:
        raise ProvidedError(
            f"{CERTIFICATE}: found {_named(signer)}, which is no CA; the first certificate must have the basic constraint"
            " CA:TRUE (with cert-manager: a Certificate with isCA: true)"
        )
    try:
        may_sign = extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = True  # RFC 5280, 4.2.1.3: what is not restricted is allowed
    if not may_sign:
        raise ProvidedError(
            f"{CERTIFICATE}: found {_named(signer)}, whose key usage does not allow to sign certificates; it must have"
            " keyCertSign"
        )


def _check_chain(chain: tuple[x509.Certificate, ...], now: dt.datetime) -> None:
    for number, (below, above) in enumerate(pairwise(chain), 2):
        _check_time(above, now)
        if not _vouches(above, below):
            raise ProvidedError(
                f"{CERTIFICATE}: certificate {number} ({_named(above)}) has not issued the one before it"
                f" ({_named(below)}); allowed: the CA first, then each certificate that issued the one before"
            )


def _check_time(certificate: x509.Certificate, now: dt.datetime) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= now < ends:
        raise ProvidedError(
            f"{CERTIFICATE}: found {_named(certificate)}, valid from {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC;"
            f" it is {now:%Y-%m-%d %H:%M}: renew it"
        )


def _key(text: bytes) -> Key:
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise ProvidedError(f"{KEY}: found no readable key; it needs {_KEYS}") from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES):
        return key
    raise ProvidedError(f"{KEY}: found {_kind(key)}; it needs {_KEYS}")


def _kind(key: object) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return f"RSA of {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return f"ECDSA on {key.curve.name}"
    return f"a key of the kind {type(key).__name__.removesuffix('PrivateKey')}"


def _vouches(above: x509.Certificate, below: x509.Certificate) -> bool:
    if above == below:
        return True
    try:
        below.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _named(certificate: x509.Certificate) -> str:
    return f"'{certificate.subject.rfc4514_string()}'"
