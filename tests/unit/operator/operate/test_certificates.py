import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.pki import Authority as LabAuthority
from lab.pki import LeafShape
from weir_operator.operate.certificates import (
    CA_LIFE,
    OVERLAP,
    SERVING_LIFE,
    Forced,
    Held,
    Kept,
    KeyPair,
    expiry,
    readable,
    renew,
    service_names,
    split,
)

T0 = datetime(2027, 1, 1, tzinfo=UTC)
NAMES = service_names("weir-system")


def made(now: datetime = T0) -> Kept:
    return renew(Held(), NAMES, now)


def later(kept: Kept, now: datetime, **forced: bool) -> Kept:
    return renew(Held(kept.authority, kept.previous, kept.serving), NAMES, now, OVERLAP, Forced(**forced))


def verifies(serving: KeyPair, bundle: bytes, now: datetime, name: str = "weir-stream.weir-system.svc") -> bool:
    """By a strict verifier that is not the code under test."""
    verifier = (
        PolicyBuilder()
        .store(Store(x509.load_pem_x509_certificates(bundle)))
        .time(now)
        .build_server_verifier(x509.DNSName(name))
    )
    try:
        verifier.verify(x509.load_pem_x509_certificate(serving.certificate), [])
    except x509.verification.VerificationError:
        return False
    return True


def test_names_are_those_of_both_services_short_and_long():
    assert "weir-webhook.weir-system.svc" in NAMES
    assert "weir-stream.weir-system.svc.cluster.local" in NAMES
    assert "weir-stream" in NAMES


def test_the_first_certificate_is_good_for_all_names_at_once():
    kept = made()
    assert kept.previous == ()
    for name in NAMES[:3]:
        assert verifies(kept.serving, kept.bundle, T0, name)
    assert not verifies(kept.serving, kept.bundle, T0, "elsewhere.weir-system.svc")


def test_it_is_valid_for_clocks_that_are_behind():
    kept = made()
    assert verifies(kept.serving, kept.bundle, T0 - timedelta(minutes=50))


def test_openssl_takes_the_pair_and_its_strict_check_the_ca():
    kept = made(datetime.now(UTC))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "pair.pem"
        path.write_bytes(kept.serving.certificate + kept.serving.key)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(path)
    client = ssl.create_default_context(cadata=kept.bundle.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="weir-webhook.weir-system.svc")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (ours, theirs):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ours.version() == "TLSv1.3"


def test_nothing_changes_before_two_thirds_of_its_life():
    kept = made()
    assert later(kept, T0 + SERVING_LIFE * 0.66) == kept


def test_the_serving_certificate_is_renewed_by_the_same_ca():
    kept = made()
    now = T0 + SERVING_LIFE * 0.67
    renewed = later(kept, now)
    assert renewed.serving != kept.serving
    assert (renewed.authority, renewed.previous) == (kept.authority, ())
    assert verifies(renewed.serving, kept.bundle, now)


def test_a_new_ca_is_announced_before_it_signs_and_the_old_one_is_trusted_after():
    first = made()
    announced = later(first, T0, authority=True)
    assert announced.authority != first.authority
    assert announced.serving == first.serving
    assert split(announced.bundle) == (announced.authority.certificate, first.authority.certificate)

    assert later(announced, T0 + OVERLAP * 0.99) == announced
    moved = later(announced, T0 + OVERLAP)
    assert moved.serving != first.serving
    assert moved.bundle == announced.bundle
    assert verifies(moved.serving, announced.bundle, T0 + OVERLAP)
    assert not verifies(moved.serving, first.bundle, T0 + OVERLAP)

    assert later(moved, T0 + OVERLAP * 1.99) == moved
    over = later(moved, T0 + OVERLAP * 2)
    assert over.bundle == over.authority.certificate
    assert over.serving == moved.serving


def test_an_old_ca_is_replaced_by_itself():
    kept = made()
    now = T0 + CA_LIFE * 0.67
    assert later(kept, now).previous == (kept.authority.certificate,)


def test_a_serving_certificate_made_anew_by_force():
    kept = made()
    renewed = later(kept, T0, serving=True)
    assert renewed.serving != kept.serving
    assert renewed.authority == kept.authority


def test_without_the_serving_certificate_one_is_made_at_once_even_by_a_ca_that_is_new():
    kept = later(made(), T0, authority=True)
    renewed = renew(Held(kept.authority, kept.previous, None), NAMES, T0)
    assert verifies(renewed.serving, kept.authority.certificate, T0)


def test_without_its_key_a_ca_is_replaced_with_overlap():
    kept = made()
    renewed = renew(Held(None, (kept.authority.certificate,), kept.serving), NAMES, T0)
    assert renewed.serving == kept.serving
    assert renewed.previous == (kept.authority.certificate,)


def test_a_certificate_of_another_ca_or_for_other_names_is_replaced_at_once():
    kept, other = made(), made()
    assert renew(Held(kept.authority, (), other.serving), NAMES, T0).serving != other.serving
    elsewhere = service_names("elsewhere")
    assert renew(Held(kept.authority, (), kept.serving), elsewhere, T0).serving != kept.serving


def test_what_has_ended_is_replaced_and_forgotten():
    first = made()
    announced = later(first, T0, authority=True)
    much_later = T0 + CA_LIFE + timedelta(days=1)
    renewed = later(announced, much_later)
    assert verifies(renewed.serving, renewed.bundle, much_later)
    assert first.authority.certificate not in renewed.previous


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.booleans()), max_size=12))
def test_whoever_looked_an_overlap_ago_verifies_what_is_served_now(steps):
    """However often and whenever certificates are made anew: bundles seen a day ago still do."""
    now, seen = T0, []
    kept = made()
    seen.append((now, kept))
    for hours, authority, serving in steps:
        now += timedelta(hours=hours)
        # A person who asks for a new serving certificate in the middle of an announcement gets it at once.
        announcing = bool(kept.previous) and now < _made(kept) + OVERLAP
        kept = later(kept, now, authority=authority, serving=serving and not announcing and not authority)
        seen.append((now, kept))
        assert verifies(kept.serving, kept.bundle, now)
        known = [old for when, old in seen if when <= now - OVERLAP]
        if known:
            assert verifies(kept.serving, known[-1].bundle, now)


def _made(kept: Kept) -> datetime:
    return x509.load_pem_x509_certificate(kept.authority.certificate).not_valid_before_utc + timedelta(hours=1)


def test_expiry_is_in_seconds_since_the_epoch():
    assert expiry(made().serving.certificate) == (T0 + SERVING_LIFE).timestamp()


@pytest.mark.parametrize(
    "change", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_what_is_no_pair_is_not_readable(change):
    kept = made()
    assert readable(kept.serving) == kept.serving
    assert readable(KeyPair(change, kept.serving.key)) is None
    assert readable(KeyPair(kept.serving.certificate, change)) is None
    assert readable(KeyPair(kept.serving.certificate, kept.authority.key)) is None
    assert split(change) == ()


def test_an_rsa_pair_is_not_one_of_ours():
    key = rsa.generate_private_key(65537, 2048)
    leaf = LabAuthority.root("other").leaf(LeafShape(names=("a.example",), key=key))
    encoded = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert readable(KeyPair(leaf.pem, encoded)) is None
