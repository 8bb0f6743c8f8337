"""The certificates no client should accept, and the controls that every client should."""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from lab.pki import Authority, Issued, LeafShape, self_signed

_DAY = dt.timedelta(days=1)
DOMAIN = "cert.weir.test"


@dataclass(frozen=True)
class CertificateCase:
    """One server: what its certificate is like, where it listens, and by what name a client calls it."""

    kind: str
    address: str
    target: str
    """What the client asks for: a name, or an address where the certificate is to be checked against that."""
    good: bool
    issued: Issued


KINDS = (
    "expired",
    "not-yet-valid",
    "wrong-host",
    "self-signed",
    "unknown-root",
    "missing-intermediate",
    "weak-key",
    "wrong-eku",
    "cn-only",
    "bad-name-constraint",
    "ip-san-mismatch",
)
CONTROLS = ("valid", "valid-intermediate", "valid-ip-san")


def _issue(kind: str, host: str, address: str, root: Authority) -> Issued:
    good = LeafShape((host,))
    elsewhere = x509.NameConstraints([x509.DNSName("elsewhere.test")], None)
    makers: dict[str, Callable[[], Issued]] = {
        "expired": lambda: root.leaf(replace(good, not_before=-30 * _DAY, not_after=-_DAY)),
        "not-yet-valid": lambda: root.leaf(replace(good, not_before=_DAY)),
        "wrong-host": lambda: root.leaf(LeafShape((f"other.{DOMAIN}",))),
        "self-signed": lambda: self_signed(host),
        "unknown-root": lambda: Authority.root("Nobody knows this root").leaf(good),
        "missing-intermediate": lambda: root.intermediate("Lab intermediate").leaf(replace(good, send_chain=False)),
        "weak-key": lambda: root.leaf(replace(good, key=rsa.generate_private_key(65537, 1024))),
        "wrong-eku": lambda: root.leaf(replace(good, usage=ExtendedKeyUsageOID.CLIENT_AUTH)),
        "cn-only": lambda: root.leaf(LeafShape((), common_name=host)),
        "bad-name-constraint": lambda: root.intermediate("Lab constrained", elsewhere).leaf(good),
        "ip-san-mismatch": lambda: root.leaf(LeafShape(("198.18.255.254",))),
        "valid": lambda: root.leaf(good),
        "valid-intermediate": lambda: root.intermediate("Lab intermediate").leaf(good),
        "valid-ip-san": lambda: root.leaf(LeafShape((address,))),
    }
    return makers[kind]()


def certificate_cases(root: Authority) -> Iterator[CertificateCase]:
    """Every kind, each on an address of its own."""
    for number, kind in enumerate((*KINDS, *CONTROLS), 1):
        host, address = f"{kind}.{DOMAIN}", f"198.18.1.{number}"
        target = address if "ip-san" in kind else host
        yield CertificateCase(kind, address, target, kind in CONTROLS, _issue(kind, host, address, root))
