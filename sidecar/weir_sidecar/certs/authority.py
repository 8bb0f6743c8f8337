"""The pod's certificate authority: made in the pod or given by a Secret; its key never leaves memory or tmpfs."""

import datetime as dt
import hashlib

# Signing would import it late: after the drop of privileges, when this may be where only root can read.
import cryptography.hazmat.backends.openssl.backend  # noqa: F401
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

_BACKDATE = dt.timedelta(days=1)
"""Clients whose clock is a little behind must still accept what was made a moment ago."""

LIFETIME = dt.timedelta(days=3650)
"""Longer than a pod lives: applications have loaded this CA, and would not know a new one."""


type Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Authority:
    """What signs leaves: a key, its certificate, and those that lead from there towards a root (RFC 5280).

    One that is made here is a root of its own: ECDSA P-256, with the extensions that strict clients ask for.
    """

    def __init__(self, key: Key, certificate: x509.Certificate, chain: tuple[x509.Certificate, ...] = ()) -> None:
        self.key = key
        self.certificate = certificate
        self.chain = chain
        self._key_identifier = _key_identifier(certificate)

    @classmethod
    def create(cls, now: dt.datetime, name: str = "Weir CA") -> "Authority":
        """A fresh CA. `now` is aware, in UTC."""
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key()
        # The serial in the name keeps two pods' CAs apart where a person or a trust store lists them by subject.
        serial = x509.random_serial_number()
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Weir"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {serial & 0xFFFFFFFF:08x}"),
            ]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(public)
            .serial_number(serial)
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(cert_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def load(cls, key_pem: bytes, certificate_pem: bytes) -> "Authority":
        """The CA that `key_pem` and `certificate_pem` wrote. Raises `ValueError` where the two do not belong together."""
        key = serialization.load_pem_private_key(key_pem, password=None)
        certificate, *chain = x509.load_pem_x509_certificates(certificate_pem)
        if not isinstance(key, Key.__value__) or key.public_key() != certificate.public_key():
            raise ValueError("the CA's key and certificate do not belong together")
        return cls(key, certificate, tuple(chain))

    @property
    def intermediates(self) -> tuple[x509.Certificate, ...]:
        """What a server sends after a leaf: the way to the root, but not a root, which the client has or does not trust."""
        return tuple(one for one in (self.certificate, *self.chain) if one.issuer != one.subject)

    @property
    def not_valid_after(self) -> dt.datetime:
        """When the first of its certificates ends: no leaf verifies after that."""
        return min(one.not_valid_after_utc for one in (self.certificate, *self.chain))

    def key_pem(self) -> bytes:
        """The private key, PKCS #8, unencrypted: for tmpfs only."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def certificate_pem(self) -> bytes:
        """The certificate and its chain, PEM."""
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (self.certificate, *self.chain))

    def fingerprint(self) -> str:
        """SHA-256 of the certificate, hexadecimal."""
        return hashlib.sha256(self.certificate.public_bytes(serialization.Encoding.DER)).hexdigest()

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """Issue what `builder` describes, with the identifiers that tie it to this CA."""
        return (
            builder.issuer_name(self.certificate.subject)
            .add_extension(self._key_identifier, critical=False)
            .sign(self.key, hashes.SHA256())
        )


def _key_identifier(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        given = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        # The way that most CAs count it (RFC 5280, 4.2.1.2); clients only use it to choose between CAs of one name.
        public = certificate.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(given)


def _key_usage(*, cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not cert_sign,
        key_cert_sign=cert_sign,
        crl_sign=cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


LEAF_KEY_USAGE = _key_usage(cert_sign=False)
