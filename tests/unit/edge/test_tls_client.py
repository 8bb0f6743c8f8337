import asyncio
import datetime as dt

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from lab.loopback import Wire, client_context, pair, run
from lab.pki import Authority as Lab
from lab.pki import LeafShape
from samples import provided_ca
from weir_sidecar.certs import provided
from weir_sidecar.certs.authority import Authority
from weir_sidecar.certs.leaf import LeafMinter
from weir_sidecar.edge import tls_client
from weir_sidecar.edge.tls_client import ClientTLS, alert_for, alert_record
from weir_sidecar.edge.tls_session import Session, Step
from weir_sidecar.edge.waiting import wait_any

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
LAB = Lab.root("root of the origins")
ORIGIN = LAB.leaf(LeafShape(("a.test",))).certificate
AUTHORITY = Authority.create(NOW)
TLS12, TLS13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION


def client_tls() -> ClientTLS:
    return ClientTLS(LeafMinter(AUTHORITY, DAY))


async def met(
    tls: ClientTLS, version: str | None, alpn: bytes | None, context: SSL.Context
) -> tuple[SSL.Connection, Session | None]:
    """The client's connection after the handshake, and ours, if it was completed."""
    near, far = pair()
    far.setblocking(False)
    client = Wire(near, context)
    client.tls.set_tlsext_host_name(b"a.test")
    session = tls.session(far, ORIGIN, version, alpn, NOW)

    async def answer() -> None:
        while session.handshake() is not Step.DONE:
            await wait_any(asyncio.get_running_loop(), readable=(far.fileno(),))

    results = await asyncio.gather(client.handshake(), answer(), return_exceptions=True)
    near.close()
    far.close()
    session.release()
    return client.tls, None if any(results) else session


@pytest.mark.parametrize(("version", "number"), [("1.2", TLS12), ("1.3", TLS13)])
@pytest.mark.parametrize("alpn", [None, b"h2", b"http/1.1"])
def test_speaks_what_was_agreed_upstream(version: str, number: int, alpn: bytes | None) -> None:
    async def main() -> None:
        context = client_context(AUTHORITY.certificate_pem(), alpn=(b"http/1.1", b"h2"))
        client, session = await met(client_tls(), version, alpn, context)
        assert session is not None
        assert client.get_protocol_version() == number
        assert session.version() == version
        assert client.get_alpn_proto_negotiated() == (alpn or b"")
        shown = client.get_peer_certificate(as_cryptography=True)
        assert shown.not_valid_after_utc <= ORIGIN.not_valid_after_utc
        assert shown.issuer == AUTHORITY.certificate.subject

    run(main)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_client_that_knows_only_the_root_is_sent_the_intermediates(version: str) -> None:
    async def main() -> None:
        root = provided_ca.make("Root", now=NOW)
        middle = provided_ca.make("Middle", root, now=NOW)
        signer = provided_ca.make("Signer", middle, key=rsa.generate_private_key(65537, 2048), now=NOW)
        authority = provided.read(provided_ca.Secret.of(signer, middle, trusted=(root,)).data, NOW).authority
        tls = ClientTLS(LeafMinter(authority, DAY))
        client, session = await met(tls, version, None, client_context(root.pem))
        assert session is not None
        shown = client.get_peer_cert_chain(as_cryptography=True)
        assert [one.subject for one in shown[1:]] == [signer.certificate.subject, middle.certificate.subject]
        _, session = await met(tls, version, None, client_context(provided_ca.make("Root", now=NOW).pem))
        assert session is None

    run(main)


def test_a_client_without_alpn_gets_none() -> None:
    async def main() -> None:
        client, session = await met(client_tls(), "1.3", b"h2", client_context(AUTHORITY.certificate_pem()))
        assert session is not None
        assert client.get_alpn_proto_negotiated() == b""

    run(main)


@pytest.mark.parametrize(("version", "only"), [("1.2", TLS13), ("1.3", TLS12)])
def test_never_speaks_another_version_than_the_upstream(version: str, only: int) -> None:
    async def main() -> None:
        context = client_context(AUTHORITY.certificate_pem(), version=only)
        _, session = await met(client_tls(), version, None, context)
        assert session is None

    run(main)


def test_contexts_are_shared_by_flows_and_renewed_at_half_their_life() -> None:
    tls = client_tls()
    first = tls._context(ORIGIN, NOW)
    assert tls._context(ORIGIN, NOW + DAY / 4) is first
    assert tls._context(ORIGIN, NOW + DAY / 2 - dt.timedelta(minutes=1)) is first
    second = tls._context(ORIGIN, NOW + DAY / 2)
    assert second is not first
    assert tls._context(ORIGIN, NOW + DAY / 2) is second


def test_another_certificate_of_the_same_names_has_another_leaf() -> None:
    tls = client_tls()
    other = LAB.leaf(LeafShape(("a.test",))).certificate
    assert tls._context(ORIGIN, NOW) is not tls._context(other, NOW)


def test_contexts_are_bounded_and_the_least_used_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_client, "_CONTEXTS", 2)
    tls = client_tls()
    others = [LAB.leaf(LeafShape((f"{number}.test",))).certificate for number in range(2)]
    first = tls._context(ORIGIN, NOW)
    tls._context(others[0], NOW)
    assert tls._context(ORIGIN, NOW) is first
    tls._context(others[1], NOW)
    assert tls._context(ORIGIN, NOW) is first
    assert len(tls._contexts) == 2


def test_a_client_reads_the_alert_record_as_one() -> None:
    async def main() -> None:
        near, far = pair()
        client = Wire(near, client_context(None))
        answer = asyncio.ensure_future(client.handshake())
        await wait_any(asyncio.get_running_loop(), readable=(far.fileno(),))
        far.send(alert_record(49))
        with pytest.raises(SSL.Error) as refused:
            await answer
        assert "alert access denied" in str(refused.value)
        near.close()
        far.close()

    run(main)


@pytest.mark.parametrize(("error", "alert"), [(9, 45), (10, 45), (18, 48), (19, 48), (20, 48), (62, 42), (26, 42)])
def test_the_alert_says_what_was_wrong(error: int, alert: int) -> None:
    assert alert_for(error) == alert
