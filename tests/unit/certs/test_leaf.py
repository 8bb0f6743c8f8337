import datetime as dt
import ipaddress
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from weir_sidecar.certs.authority import Authority
from weir_sidecar.certs.leaf import LeafMinter

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DAY = dt.timedelta(days=1)
KEY = ec.generate_private_key(ec.SECP256R1())


def upstream(
    *names: x509.GeneralName,
    subject: tuple[x509.NameAttribute, ...] = (x509.NameAttribute(NameOID.COMMON_NAME, "origin"),),
    not_before: dt.datetime = NOW - 90 * DAY,
    not_after: dt.datetime = NOW + 90 * DAY,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "public root")]))
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256())


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(NOW)


@pytest.fixture(scope="module")
def minter(authority: Authority) -> LeafMinter:
    return LeafMinter(authority, DAY)


def names_of(leaf: x509.Certificate) -> list[x509.GeneralName]:
    return list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def test_mirrors_the_names_of_servers_and_no_others(minter: LeafMinter) -> None:
    kept = [
        x509.DNSName("a.test"),
        x509.DNSName("*.b.test"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        x509.UniformResourceIdentifier("spiffe://test/ns/a"),
    ]
    dropped = [x509.RFC822Name("root@a.test"), x509.DirectoryName(x509.Name([]))]
    leaf = minter.mirror(upstream(*kept, *dropped), NOW)
    assert names_of(leaf) == kept
    assert leaf.subject.rfc4514_string() == "CN=origin"


def test_takes_of_the_subject_the_common_name_alone(minter: LeafMinter) -> None:
    subject = (
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A Bank"),
        x509.NameAttribute(NameOID.COMMON_NAME, "bank.test"),
    )
    leaf = minter.mirror(upstream(x509.DNSName("bank.test"), subject=subject), NOW)
    assert leaf.subject.rfc4514_string() == "CN=bank.test"


def test_an_upstream_without_names_gives_a_leaf_without_names(minter: LeafMinter) -> None:
    leaf = minter.mirror(upstream(), NOW)
    with pytest.raises(x509.ExtensionNotFound):
        names_of(leaf)


def test_an_empty_subject_makes_the_names_critical(minter: LeafMinter) -> None:
    leaf = minter.mirror(upstream(x509.DNSName("a.test"), subject=()), NOW)
    assert not leaf.subject.rdns
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


@pytest.mark.parametrize("after", [dt.timedelta(minutes=1), DAY - dt.timedelta(seconds=1), DAY, 400 * DAY])
@pytest.mark.parametrize("before", [dt.timedelta(0), dt.timedelta(hours=1), DAY, 400 * DAY])
def test_is_never_valid_when_the_upstream_is_not(minter: LeafMinter, before: dt.timedelta, after: dt.timedelta) -> None:
    shown = upstream(x509.DNSName("a.test"), not_before=NOW - before, not_after=NOW + after)
    leaf = minter.mirror(shown, NOW)
    assert shown.not_valid_before_utc <= leaf.not_valid_before_utc <= NOW
    assert NOW < leaf.not_valid_after_utc <= shown.not_valid_after_utc
    assert leaf.not_valid_after_utc <= NOW + DAY


def test_is_never_valid_when_the_authority_is_not(authority: Authority) -> None:
    late = authority.certificate.not_valid_after_utc - dt.timedelta(hours=1)
    leaf = LeafMinter(authority, DAY).mirror(upstream(x509.DNSName("a.test"), not_after=late + 9 * DAY), late)
    assert leaf.not_valid_after_utc <= authority.certificate.not_valid_after_utc


def test_is_a_server_and_nothing_else(minter: LeafMinter, authority: Authority) -> None:
    leaf = minter.mirror(upstream(x509.DNSName("a.test")), NOW)
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).critical
    leaf.verify_directly_issued_by(authority.certificate)


def test_every_leaf_has_a_serial_of_its_own(minter: LeafMinter) -> None:
    shown = upstream(x509.DNSName("a.test"))
    assert minter.mirror(shown, NOW).serial_number != minter.mirror(shown, NOW).serial_number


STRICT = [
    ((x509.DNSName("a.test"),), "a.test", True),
    ((x509.DNSName("a.test"),), "b.test", False),
    ((x509.DNSName("*.b.test"),), "x.b.test", True),
    ((x509.DNSName("*.b.test"),), "x.y.b.test", False),
    ((x509.IPAddress(ipaddress.ip_address("192.0.2.1")),), "192.0.2.1", True),
    ((x509.IPAddress(ipaddress.ip_address("192.0.2.1")),), "192.0.2.2", False),
    ((x509.IPAddress(ipaddress.ip_address("2001:db8::1")),), "2001:db8::1", True),
]


@pytest.mark.parametrize("case", STRICT, ids=lambda case: f"{case[1]}-{case[2]}")
@pytest.mark.parametrize("empty_subject", [False, True])
def test_a_strict_python_accepts_it_for_exactly_the_upstreams_names(
    tmp_path: Path,
    authority: Authority,
    minter: LeafMinter,
    case: tuple[tuple[x509.GeneralName, ...], str, bool],
    empty_subject: bool,
) -> None:
    names, asked, good = case
    leaf = minter.mirror(upstream(*names, **({"subject": ()} if empty_subject else {})), NOW)
    file = tmp_path / "leaf.pem"
    key = minter.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(key + leaf.public_bytes(Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    client = ssl.create_default_context(cadata=authority.certificate_pem().decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    here, there = socket.socketpair()
    failure: list[ssl.SSLError] = []

    def connect() -> None:
        try:
            client.wrap_socket(here, server_hostname=asked).close()
        except ssl.SSLError as error:
            failure.append(error)
        finally:
            here.close()

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        with server.wrap_socket(there, server_side=True, suppress_ragged_eofs=True):
            pass
    except (ssl.SSLError, OSError):
        assert not good
    finally:
        there.close()
        thread.join()
    assert not failure if good else isinstance(failure[0], ssl.SSLCertVerificationError)
