import asyncio
import datetime as dt

import msgspec
import pytest
from OpenSSL import SSL, crypto

from lab.flow_bench import LAB, LEAF
from lab.loopback import Wire, hello_of, pair, run, server_context
from lab.pki import LeafShape
from weir_sidecar.certs.bundle import BundleError
from weir_sidecar.edge import tls_upstream
from weir_sidecar.edge.tls_session import Session, SessionEndedError, Step
from weir_sidecar.edge.tls_upstream import UpstreamTLS
from weir_sidecar.edge.waiting import wait_any
from weir_sidecar.wire.clienthello import ClientHello, parse

TLS12, TLS13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION


async def completed(session: Session) -> None:
    while session.handshake() is not Step.DONE:
        await wait_any(asyncio.get_running_loop(), readable=(session.sock.fileno(),))


def offered(hello: ClientHello) -> ClientHello:
    """What an upstream is offered on behalf of a client that said `hello`."""
    near, far = pair()
    near.setblocking(False)
    session = UpstreamTLS((LAB.issued.pem,)).session(near, hello)
    assert session.handshake() is Step.WANT_READ
    found = parse(far.recv(65536))
    near.close()
    far.close()
    session.release()
    assert isinstance(found, ClientHello)
    return found


@pytest.mark.parametrize("sni", ["a.test", None])
@pytest.mark.parametrize("alpn", [(), (b"h2",), (b"http/1.1", b"h2", b"x" * 255)])
@pytest.mark.parametrize("version", [TLS12, None])
def test_offers_what_the_client_offered(sni: str | None, alpn: tuple[bytes, ...], version: int | None) -> None:
    hello = hello_of(sni, alpn=alpn, version=version)[1]
    found = offered(hello)
    assert (found.sni, found.alpn, found.max_version) == (sni, alpn, hello.max_version)
    assert min(found.versions) >= TLS12
    assert (tls_upstream.X25519MLKEM768 in found.groups) == (tls_upstream.X25519MLKEM768 in hello.groups)


def test_a_client_without_a_post_quantum_share_costs_none() -> None:
    hello = hello_of("a.test")[1]
    classical = msgspec.structs.replace(hello, groups=(29, 23))
    assert tls_upstream.X25519MLKEM768 not in offered(classical).groups


async def meet(tls: UpstreamTLS, origin: SSL.Context) -> Session:
    near, far = pair()
    near.setblocking(False)
    session = tls.session(near, hello_of("a.test")[1])
    peer = Wire(far, origin, server=True)
    results = await asyncio.gather(completed(session), peer.handshake(), return_exceptions=True)
    near.close()
    far.close()
    if isinstance(results[0], BaseException):
        raise results[0]
    return session


def test_without_roots_nobody_is_trusted() -> None:
    async def main() -> None:
        with pytest.raises(SessionEndedError):
            await meet(UpstreamTLS(()), server_context(LEAF))
        assert (await meet(UpstreamTLS((LAB.issued.pem,)), server_context(LEAF))).verify_error == 0

    run(main)


def test_the_lowest_version_is_the_policys() -> None:
    async def main() -> None:
        tls = UpstreamTLS((LAB.issued.pem,), "1.3")
        assert (await meet(tls, server_context(LEAF))).version() == "1.3"
        with pytest.raises(SessionEndedError):
            await meet(tls, server_context(LEAF, version=TLS12))

    run(main)


def test_every_connection_is_verified_anew() -> None:
    """No session is resumed, so a certificate that has become bad is bad at once."""

    async def main() -> None:
        tls = UpstreamTLS((LAB.issued.pem,))
        await meet(tls, server_context(LEAF))
        expired = LAB.leaf(
            LeafShape(("a.test",), not_before=-2 * dt.timedelta(days=1), not_after=-dt.timedelta(days=1))
        )
        with pytest.raises(SessionEndedError):
            await meet(tls, server_context(expired))

    run(main)


def test_names_are_remembered_by_certificate_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_upstream, "_VERIFIED_NAMES", 2)
    tls = UpstreamTLS((LAB.issued.pem,))
    for _ in range(2):
        assert tls.verify_names(LEAF.certificate, ("a.test",)) == 0
        assert tls.verify_names(LEAF.certificate, ("b.test",)) == 62
        assert tls.verify_names(LEAF.certificate, ("127.0.0.1",)) == 64
        assert tls.verify_names(LEAF.certificate, ("127.0.0.1", "a.test")) == 0
    assert len(tls._verified) == 2


@pytest.mark.parametrize("pem", [b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", b"nothing"])
def test_roots_that_are_no_certificates_are_refused(pem: bytes) -> None:
    with pytest.raises((BundleError, crypto.Error)):
        UpstreamTLS((pem,))
