import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from OpenSSL import crypto

from samples.provided_ca import DAY, NOW, Secret, Shape, ec_key, make
from weir_sidecar.certs.provided import ProvidedError, read

ROOT = make("Company Root")
MIDDLE = make("Company Middle", ROOT)
SIGNER = make("Company Interception", MIDDLE)
ALONE = Secret.of(ROOT)
CHAIN = Secret.of(SIGNER, MIDDLE, trusted=(ROOT,))


@pytest.mark.parametrize(
    "key",
    [
        ec_key(),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-256", "P-384", "P-521", "RSA-2048"],
)
def test_takes_the_keys_that_tools_make(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    root = make("Root", key=key)
    provided = read(Secret.of(root).data, NOW)
    assert provided.authority.certificate == root.certificate
    assert provided.authority.intermediates == ()
    assert provided.trusted == (root.certificate,)


def test_a_chain_is_kept_for_clients_that_know_only_the_root() -> None:
    provided = read(CHAIN.data, NOW)
    assert provided.authority.intermediates == (SIGNER.certificate, MIDDLE.certificate)
    assert provided.trusted == (ROOT.certificate,)


def test_a_root_at_the_end_of_the_chain_is_not_sent() -> None:
    provided = read(Secret.of(SIGNER, MIDDLE, ROOT).data, NOW)
    assert provided.authority.intermediates == (SIGNER.certificate, MIDDLE.certificate)


def test_while_roots_change_all_are_trusted() -> None:
    successor = make("Next Root")
    for signer in (ROOT, successor):
        provided = read(Secret.of(signer, trusted=(ROOT, successor)).data, NOW)
        assert provided.authority.certificate == signer.certificate
        assert provided.trusted == (ROOT.certificate, successor.certificate)


def test_no_key_usage_allows_everything() -> None:
    assert read(Secret.of(make("Old", shape=Shape(cert_sign=None, identifier=False))).data, NOW)


def test_ends_with_the_first_certificate_that_ends() -> None:
    brief = make("Brief", ROOT, shape=Shape(ends=3 * DAY))
    provided = read(Secret.of(make("Signer", brief), brief, trusted=(ROOT,)).data, NOW)
    assert provided.authority.not_valid_after == NOW + 3 * DAY


def encrypted(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


LEAF = make("a.test", ROOT, shape=Shape(authority=False))
UNMARKED = make("old.test", ROOT, shape=Shape(authority=None))
NO_SIGN = make("Signs nothing", ROOT, shape=Shape(cert_sign=False))
OVER = make("Over", shape=Shape(begins=-9 * DAY, ends=-DAY))
EARLY = make("Early", shape=Shape(begins=DAY))
OVER_ABOVE = make("Over above", ROOT, shape=Shape(begins=-9 * DAY, ends=-DAY))

BAD: dict[str, tuple[dict[str, bytes], tuple[str, ...]]] = {
    "no tls.crt": (ALONE.without("tls.crt"), ("tls.crt: the Secret has no such key", "ca.crt")),
    "no tls.key": (ALONE.without("tls.key"), ("tls.key: the Secret has no such key",)),
    "no ca.crt": (ALONE.without("ca.crt"), ("ca.crt: the Secret has no such key",)),
    "empty tls.crt": (ALONE.but("tls.crt", b""), ("tls.crt: found no readable certificate", "BEGIN CERTIFICATE")),
    "junk in ca.crt": (ALONE.but("ca.crt", b"junk"), ("ca.crt: found no readable certificate",)),
    "half a key": (ALONE.but("tls.key", ROOT.key_pem[:90]), ("tls.key: found no readable key", "RSA of 2048 bits")),
    "encrypted key": (ALONE.but("tls.key", encrypted(ec_key())), ("tls.key: found no readable key", "unencrypted")),
    "another's key": (ALONE.but("tls.key", SIGNER.key_pem), ("tls.key: found a key that does not fit", "Company Root")),
    "short RSA": (
        ALONE.but("tls.key", make("s", key=rsa.generate_private_key(65537, 1024)).key_pem),
        ("tls.key: found RSA of 1024 bits", "P-384"),
    ),
    "Ed25519": (
        ALONE.but("tls.key", make("e", key=ed25519.Ed25519PrivateKey.generate()).key_pem),
        ("tls.key: found a key of the kind Ed25519", "ECDSA"),
    ),
    "odd curve": (
        ALONE.but("tls.key", make("k", key=ec.generate_private_key(ec.SECP256K1())).key_pem),
        ("tls.key: found ECDSA on secp256k1",),
    ),
    "a leaf": (Secret.of(LEAF, trusted=(ROOT,)).data, ("tls.crt: found 'CN=a.test'", "CA:TRUE", "isCA")),
    "no basic constraints": (Secret.of(UNMARKED, trusted=(ROOT,)).data, ("tls.crt: found 'CN=old.test'", "CA:TRUE")),
    "may not sign": (Secret.of(NO_SIGN, trusted=(ROOT,)).data, ("tls.crt: found 'CN=Signs nothing'", "keyCertSign")),
    "over": (Secret.of(OVER).data, ("tls.crt: found 'CN=Over'", "2030-01-01 03:04", "it is 2030-01-02")),
    "not yet": (Secret.of(EARLY).data, ("tls.crt: found 'CN=Early'", "2030-01-03 03:04")),
    "over above": (
        Secret.of(make("S", OVER_ABOVE), OVER_ABOVE, trusted=(ROOT,)).data,
        ("tls.crt: found 'CN=Over above'", "renew"),
    ),
    "chain out of order": (
        Secret.of(SIGNER, ROOT, MIDDLE, trusted=(ROOT,)).data,
        ("tls.crt: certificate 2 ('CN=Company Root') has not issued", "Company Interception"),
    ),
    "unrelated roots": (
        Secret.of(SIGNER, MIDDLE, trusted=(make("Stranger"),)).data,
        ("ca.crt: found 'CN=Stranger', none of which has issued", "Company Interception"),
    ),
    "a namesake for root": (
        Secret.of(SIGNER, MIDDLE, trusted=(make("Company Root"),)).data,
        ("ca.crt: found 'CN=Company Root', none of which has issued",),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_said_with_the_key_and_what_is_allowed(name: str) -> None:
    files, said = BAD[name]
    with pytest.raises(ProvidedError) as caught:
        read(files, NOW)
    assert str(caught.value).startswith(said[0])
    for words in said:
        assert words in str(caught.value)


def test_a_signed_leaf_leads_to_the_root() -> None:
    """Whatever the key: OpenSSL itself judges, with the root alone."""
    for key in (ec_key(), rsa.generate_private_key(65537, 2048)):
        now = dt.datetime.now(dt.UTC)
        root = make("R", now=now)
        signer = make("S", root, key=key, shape=Shape(identifier=False), now=now)
        authority = read(Secret.of(signer, trusted=(root,)).data, now).authority
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .public_key(ec_key().public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
        )
        store = crypto.X509Store()
        store.add_cert(crypto.X509.from_cryptography(root.certificate))
        chain = [crypto.X509.from_cryptography(one) for one in authority.intermediates]
        leaf = crypto.X509.from_cryptography(authority.sign(builder))
        crypto.X509StoreContext(store, leaf, chain).verify_certificate()
