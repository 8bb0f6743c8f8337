import datetime as dt
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from weir_sidecar.certs.names import HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH, mismatch

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
SUBJECT_ALTERNATIVE_NAME = x509.ObjectIdentifier("2.5.29.17")


def certificate(*names: str, common_name: str = "cn.test", extension: x509.ExtensionType | None = None):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), 1, NOW, NOW)
    if names:
        extension = x509.SubjectAlternativeName([_general_name(name) for name in names])
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.mark.parametrize(
    ("shown", "asked"),
    [
        (["a.test"], "a.test"),
        (["A.Test"], "a.test"),
        (["x.test", "a.test"], "a.test"),
        (["*.a.test"], "b.a.test"),
        (["*.A.test"], "xn--bcher-kva.a.test"),
        (["foo_bar.a.test"], "foo_bar.a.test"),
        (["localhost"], "localhost"),
        # Names that are no good do not spoil those that are.
        (["*", "*.test", "a.*.test", "", "a.test"], "a.test"),
        (["192.0.2.1"], "192.0.2.1"),
        (["2001:db8::1"], "2001:db8:0:0:0:0:0:1"),
    ],
)
def test_names_a_server(shown: list[str], asked: str) -> None:
    assert mismatch(certificate(*shown), (asked,)) == 0


@pytest.mark.parametrize(
    ("shown", "asked", "error"),
    [
        (["a.test"], "b.test", HOSTNAME_MISMATCH),
        (["a.test"], "x.a.test", HOSTNAME_MISMATCH),
        (["*.a.test"], "a.test", HOSTNAME_MISMATCH),
        (["*.a.test"], "x.y.a.test", HOSTNAME_MISMATCH),
        (["*.a.test"], ".a.test", HOSTNAME_MISMATCH),
        (["*.test"], "a.test", HOSTNAME_MISMATCH),
        (["*"], "test", HOSTNAME_MISMATCH),
        (["b*.a.test"], "bc.a.test", HOSTNAME_MISMATCH),
        (["a.*.test"], "a.b.test", HOSTNAME_MISMATCH),
        (["*.*.test"], "a.b.test", HOSTNAME_MISMATCH),
        ([], "cn.test", HOSTNAME_MISMATCH),
        (["192.0.2.1"], "192.0.2.2", IP_ADDRESS_MISMATCH),
        (["a.test"], "192.0.2.2", IP_ADDRESS_MISMATCH),
        (["192.0.2.1"], "a.test", HOSTNAME_MISMATCH),
    ],
)
def test_names_others(shown: list[str], asked: str, error: int) -> None:
    assert mismatch(certificate(*shown), (asked,)) == error


def test_an_address_is_no_host_name() -> None:
    """A dNSName that reads like an address names no address (RFC 9525, section 6.5)."""
    spelled = x509.SubjectAlternativeName([x509.DNSName("192.0.2.1")])
    assert mismatch(certificate(extension=spelled), ("192.0.2.1",)) == IP_ADDRESS_MISMATCH


def test_any_one_of_several_suffices() -> None:
    assert mismatch(certificate("a.test"), ("192.0.2.1", "a.test")) == 0
    assert mismatch(certificate("192.0.2.1"), ("192.0.2.1", "a.test")) == 0
    assert mismatch(certificate("b.test"), ("192.0.2.1", "a.test")) == HOSTNAME_MISMATCH


def test_nothing_asked_is_nothing_named() -> None:
    assert mismatch(certificate("a.test"), ()) == HOSTNAME_MISMATCH


@pytest.mark.parametrize("data", [b"", b"\x30\x03\x82\x01", b"\x04\x00", b"\x30\x03\x82\x01\xff"])
def test_names_that_cannot_be_read_name_nobody(data: bytes) -> None:
    broken = x509.UnrecognizedExtension(SUBJECT_ALTERNATIVE_NAME, data)
    assert mismatch(certificate(extension=broken), ("a.test",)) == HOSTNAME_MISMATCH
