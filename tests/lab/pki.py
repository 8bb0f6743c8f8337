"""The lab's certificates: one root that clients and Weir are told about, and every kind of leaf, good and bad."""

import datetime as dt
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

type Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
type Validity = tuple[dt.datetime, dt.datetime]

TRUST_STORE_PASSWORD = "changeit"
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, and the certificates a server sends after it."""

    certificate: x509.Certificate
    key: Key
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def write(self, path: Path) -> Path:
        """Key, certificate and chain in one PEM file, as `SSLContext.load_cert_chain` reads them."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(key + self.pem + b"".join(c.public_bytes(Encoding.PEM) for c in self.chain))
        return path


@dataclass(frozen=True)
class LeafShape:
    """What a leaf says; the defaults are those of a good one."""

    names: tuple[str, ...] = ()
    common_name: str | None = None
    organization: str | None = None
    """To an API server: the group of a client's certificate."""
    key: Key | None = None
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH
    not_before: dt.timedelta = -_DAY
    not_after: dt.timedelta = 30 * _DAY
    send_chain: bool = True


def _name(common_name: str, organization: str | None = None) -> x509.Name:
    above = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*above, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, issuer_key: Key, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


@dataclass(frozen=True)
class Authority:
    """A CA that issues intermediates and leaves."""

    issued: Issued
    above: tuple[x509.Certificate, ...] = ()
    """The certificates between this CA and its root, this one first; empty for a root."""

    @classmethod
    def root(cls, name: str) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_authority(name, key, _name(name), key, ()))

    def intermediate(self, name: str, constraints: x509.NameConstraints | None = None) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.issued.certificate.subject
        issued = _authority(name, key, issuer, self.issued.key, (constraints,) if constraints else ())
        return Authority(issued, (issued.certificate, *self.above))

    def leaf(self, shape: LeafShape) -> Issued:
        now = dt.datetime.now(dt.UTC)
        key = shape.key or ec.generate_private_key(ec.SECP256R1())
        subject = _name(shape.common_name or (shape.names[0] if shape.names else "leaf"), shape.organization)
        validity = (now + shape.not_before, now + shape.not_after)
        builder = _builder(subject, self.issued.certificate.subject, key, self.issued.key, validity)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([shape.usage]), critical=False)
        )
        if shape.names:
            names = x509.SubjectAlternativeName([_general_name(name) for name in shape.names])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self.issued.key, hashes.SHA256())
        return Issued(certificate, key, self.above if shape.send_chain else ())


def _authority(
    name: str, key: Key, issuer: x509.Name, issuer_key: Key, constraints: tuple[x509.NameConstraints, ...]
) -> Issued:
    now = dt.datetime.now(dt.UTC)
    builder = _builder(_name(name), issuer, key, issuer_key, (now - _DAY, now + 365 * _DAY))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(ca=True), critical=True)
    for constraint in constraints:
        builder = builder.add_extension(constraint, critical=True)
    return Issued(builder.sign(issuer_key, hashes.SHA256()), key)


def self_signed(name: str) -> Issued:
    """A leaf that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    builder = _builder(_name(name), _name(name), key, key, (now - _DAY, now + 30 * _DAY))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return Issued(builder.sign(key, hashes.SHA256()), key)


@dataclass(frozen=True)
class PKI:
    """The lab's root with what clients need of it on disk."""

    directory: Path
    root: Authority = field(default_factory=lambda: Authority.root("Weir lab root"))

    @property
    def ca_file(self) -> Path:
        """The lab's root alone: what a client that distrusts Weir is given."""
        path = self.directory / "lab-root.pem"
        if not path.exists():
            path.write_bytes(self.root.issued.pem)
        return path

    @property
    def java_trust_store(self) -> Path:
        """The same as a PKCS12 trust store, for Java."""
        path = self.directory / "lab-root.p12"
        if not path.exists():
            entry = PKCS12Certificate(self.root.issued.certificate, b"weir-lab-root")
            encryption = BestAvailableEncryption(TRUST_STORE_PASSWORD.encode())
            path.write_bytes(serialize_java_truststore([entry], encryption))
        return path

    @property
    def empty_directory(self) -> Path:
        """A CA directory without a CA, for clients that read the system's beside the file they are given."""
        path = self.directory / "no-ca"
        path.mkdir(exist_ok=True)
        return path
