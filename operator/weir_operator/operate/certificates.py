"""The control plane's CA and serving certificate: what there is, and what there ought to be now. Pure but for fresh keys.

A CA is first only announced: for `overlap` it stands in every bundle and signs nothing, so that API servers and sidecars
know it before they meet its certificate. Then the serving certificate is made anew by it, and after as long again the
CAs before it are forgotten. All of this is read from the certificates' own times, so no progress is kept anywhere.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = timedelta(days=3650)
SERVING_LIFE = timedelta(days=90)
RENEW_AFTER = 2 / 3
"""Part of its life after which a certificate is made anew."""
SKEW = timedelta(hours=1)
"""Certificates are valid from this long before they are made: clocks differ."""
OVERLAP = timedelta(days=1)

SERVICES = ("weir-webhook", "weir-stream")


class KeyPair(msgspec.Struct, frozen=True):
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


class Held(msgspec.Struct, frozen=True):
    """What the control plane has: its CA, CAs before it that are still trusted (PEM, one each), its certificate."""

    authority: KeyPair | None = None
    previous: tuple[bytes, ...] = ()
    serving: KeyPair | None = None


class Kept(msgspec.Struct, frozen=True):
    """What it has once `renew` has seen to it."""

    authority: KeyPair
    previous: tuple[bytes, ...]
    serving: KeyPair

    @property
    def bundle(self) -> bytes:
        """All CAs to be trusted, PEM, the newest first."""
        return b"".join((self.authority.certificate, *self.previous))


class Forced(msgspec.Struct, frozen=True):
    """What a person asked to be made anew."""

    authority: bool = False
    serving: bool = False


def service_names(namespace: str) -> tuple[str, ...]:
    """The names by which the two Services are reached, short and long."""
    forms = ("{0}.{1}.svc", "{0}.{1}.svc.cluster.local", "{0}.{1}", "{0}")
    return tuple(form.format(service, namespace) for service in SERVICES for form in forms)


def renew(
    held: Held, names: Sequence[str], now: datetime, overlap: timedelta = OVERLAP, forced: Forced | None = None
) -> Kept:
    """What ought to be held now. Equal to `held` when nothing is due."""
    forced = forced or Forced()
    authority, previous = held.authority, held.previous
    if authority is None or forced.authority or _aged(_read(authority.certificate), now):
        previous = previous if authority is None else (authority.certificate, *previous)
        authority = _new_authority(now)
    newest = _read(authority.certificate)
    previous = tuple(one for one in previous if now < _read(one).not_valid_after_utc and one != authority.certificate)
    announced = not previous or now >= _made(newest) + overlap
    known = [newest, *(_read(one) for one in previous)]
    serving = held.serving
    if (
        serving is None
        or forced.serving
        or _unusable(serving, known, names, now)
        or (announced and _due(serving, newest, now))
    ):
        serving = _new_serving(authority, names, now)
    if now >= _made(newest) + 2 * overlap and _signed(_read(serving.certificate), newest):
        previous = ()
    return Kept(authority, previous, serving)


def readable(pair: KeyPair) -> KeyPair | None:
    """The pair if it is a certificate and the EC key that belongs to it, else None."""
    try:
        certificate = _read(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    fits = isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key()
    return pair if fits else None


def split(bundle: bytes) -> tuple[bytes, ...]:
    """The certificates of a bundle, PEM, one each; none if it cannot be read."""
    try:
        return tuple(_pem(one) for one in x509.load_pem_x509_certificates(bundle))
    except ValueError:
        return ()


def expiry(certificate: bytes) -> float:
    """When a certificate ends, seconds since the epoch."""
    return _read(certificate).not_valid_after_utc.timestamp()


def _due(serving: KeyPair, newest: x509.Certificate, now: datetime) -> bool:
    """Whether it is time for a new one, though this one still serves."""
    certificate = _read(serving.certificate)
    return _aged(certificate, now) or not _signed(certificate, newest)


def _unusable(pair: KeyPair, authorities: Iterable[x509.Certificate], names: Sequence[str], now: datetime) -> bool:
    certificate = _read(pair.certificate)
    present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        now >= certificate.not_valid_after_utc
        or not set(names) <= set(present.get_values_for_type(x509.DNSName))
        or not any(_signed(certificate, authority) for authority in authorities)
    )


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _made(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_before_utc + SKEW


def _aged(certificate: x509.Certificate, now: datetime) -> bool:
    life = certificate.not_valid_after_utc - _made(certificate)
    return now >= _made(certificate) + life * RENEW_AFTER


def _new_authority(now: datetime) -> KeyPair:
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = _name(f"Weir control plane CA {identifier.digest.hex()[:8]}")  # its own name, so that CAs are told apart
    builder = (
        _certificate(name, name, key, now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def _new_serving(authority: KeyPair, names: Sequence[str], now: datetime) -> KeyPair:
    issuer = _read(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)  # `_new_authority` made it
    issuer_identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _certificate(_name(names[0]), issuer.subject, key, now, SERVING_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_identifier), critical=False
        )
    )
    return _pair(builder.sign(issuer_key, hashes.SHA256()), key)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    """RFC 5280, section 4.2.1.3: a CA signs certificates, a server with ECDSA signs handshakes."""
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return KeyPair(_pem(certificate), encoded)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _read(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)
