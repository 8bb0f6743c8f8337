"""CAs as a person or cert-manager would put them into a Secret, good and bad."""

import datetime as dt
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

NOW = dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)

type AnyKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey


@dataclass(frozen=True)
class Shape:
    """What a CA's certificate says; the defaults are those of a good one."""

    authority: bool | None = True
    cert_sign: bool | None = True
    identifier: bool = True
    begins: dt.timedelta = -DAY
    ends: dt.timedelta = 365 * DAY


@dataclass(frozen=True)
class CA:
    certificate: x509.Certificate
    key: AnyKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """As cert-manager writes it: RSA keys are PKCS #1."""
        form = PrivateFormat.TraditionalOpenSSL if isinstance(self.key, rsa.RSAPrivateKey) else PrivateFormat.PKCS8
        return self.key.private_bytes(Encoding.PEM, form, NoEncryption())


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def make(
    name: str, above: CA | None = None, key: AnyKey | None = None, shape: Shape | None = None, now: dt.datetime = NOW
) -> CA:
    """A CA; without one above it, a root."""
    key, shape = key or ec_key(), shape or Shape()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = above.key if above else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above.certificate.subject if above else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + shape.begins)
        .not_valid_after(now + shape.ends)
    )
    if shape.authority is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=shape.authority, path_length=None), critical=True)
    if shape.cert_sign is not None:
        builder = builder.add_extension(_usage(sign=shape.cert_sign), critical=True)
    if shape.identifier:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    if above:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = builder.add_extension(identifier, critical=False)
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return CA(builder.sign(signer, digest), key)


def _usage(*, sign: bool) -> x509.KeyUsage:
    false = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(digital_signature=not sign, key_cert_sign=sign, crl_sign=sign, **false)


@dataclass(frozen=True)
class Secret:
    """The data of a Secret; `without` and `but` make variants."""

    data: dict[str, bytes]

    @classmethod
    def of(cls, signer: CA, *chain: CA, trusted: tuple[CA, ...] = ()) -> "Secret":
        roots = trusted or ((signer, *chain)[-1],)
        return cls(
            {
                "tls.crt": b"".join(one.pem for one in (signer, *chain)),
                "tls.key": signer.key_pem,
                "ca.crt": b"".join(one.pem for one in roots),
            }
        )

    def without(self, name: str) -> dict[str, bytes]:
        return {key: value for key, value in self.data.items() if key != name}

    def but(self, name: str, value: bytes) -> dict[str, bytes]:
        return self.data | {name: value}
