import datetime as dt
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from samples import provided_ca
from weir_sidecar.certs.authority import Authority

NOW = dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(NOW)


def test_is_a_root_that_may_sign_leaves_and_nothing_deeper(authority: Authority) -> None:
    certificate = authority.certificate
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert certificate.issuer == certificate.subject
    certificate.verify_directly_issued_by(certificate)


def test_is_valid_from_a_little_before_now(authority: Authority) -> None:
    assert authority.certificate.not_valid_before_utc < NOW - dt.timedelta(hours=12)
    assert authority.certificate.not_valid_after_utc > NOW + dt.timedelta(days=300)


def test_two_pods_have_nothing_in_common(authority: Authority) -> None:
    other = Authority.create(NOW)
    assert other.certificate.subject != authority.certificate.subject
    assert other.fingerprint() != authority.fingerprint()
    assert other.key_pem() != authority.key_pem()


def test_is_the_same_after_it_was_written_and_read(authority: Authority) -> None:
    again = Authority.load(authority.key_pem(), authority.certificate_pem())
    assert again.fingerprint() == authority.fingerprint()
    assert again.key_pem() == authority.key_pem()
    assert len(again.fingerprint()) == 64


def test_refuses_a_key_of_another_certificate(authority: Authority) -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        Authority.load(Authority.create(NOW).key_pem(), authority.certificate_pem())


def test_keeps_its_chain_when_it_was_written_and_read() -> None:
    root = provided_ca.make("Root")
    middle = provided_ca.make("Middle", root)
    signer = provided_ca.make("Signer", middle, key=rsa.generate_private_key(65537, 2048))
    written = Authority(signer.key, signer.certificate, (middle.certificate,))
    again = Authority.load(written.key_pem(), written.certificate_pem())
    assert again.fingerprint() == written.fingerprint()
    assert again.intermediates == (signer.certificate, middle.certificate)


def test_a_root_of_its_own_sends_nothing_beside_the_leaf(authority: Authority) -> None:
    assert authority.intermediates == ()
    assert authority.not_valid_after == authority.certificate.not_valid_after_utc


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_refuses_half_a_file(authority: Authority, cut: int) -> None:
    with pytest.raises(ValueError):
        Authority.load(authority.key_pem()[:cut], authority.certificate_pem())
    with pytest.raises(ValueError):
        Authority.load(authority.key_pem(), authority.certificate_pem()[:cut])


def test_refuses_a_key_on_another_curve(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="do not belong together"):
        Authority.load(pem, authority.certificate_pem())


def test_the_sidecar_makes_one_without_importing_anything_late() -> None:
    """After the drop of privileges its code may be where only root can read: a checkout in /root is."""
    script = """if True:
        import datetime, sys
        from weir_sidecar import __main__
        from weir_sidecar.certs.authority import Authority

        def refuse(event, arguments):
            if event == "import":
                raise ImportError(arguments[0])

        sys.addaudithook(refuse)
        made = Authority.create(datetime.datetime.now(datetime.UTC))
        Authority.load(made.key_pem(), made.certificate_pem())
    """
    subprocess.run([sys.executable, "-c", script], check=True)
