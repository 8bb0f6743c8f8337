"""The pod's certificate authority: made in the sidecar, signs leaves, and its key never leaves memory or tmpfs."""

import datetime as dt
import hashlib

# Signing would import it late: after the drop of privileges, when this may be where only root can read.
import cryptography.hazmat.backends.openssl.backend  # noqa: F401
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_BACKDATE = dt.timedelta(days=1)
"""Clients whose clock is a little behind must still accept what was made a moment ago."""

LIFETIME = dt.timedelta(days=3650)
"""Longer than a pod lives: applications have loaded this CA, and would not know a new one."""


class Authority:
    """A CA: ECDSA P-256 key and self-signed certificate (RFC 5280), with the extensions strict clients ask for."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.key = key
        self.certificate = certificate
        self._key_identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        )

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
        """The CA that was written before. Raises `ValueError` where the two do not belong together."""
        key = serialization.load_pem_private_key(key_pem, password=None)
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("the CA's key and certificate do not belong together")
        return cls(key, certificate)

    def key_pem(self) -> bytes:
        """The private key, PKCS #8, unencrypted: for tmpfs only."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def certificate_pem(self) -> bytes:
        """The certificate, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

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
