import asyncio
import datetime as dt
from collections.abc import Callable

import pytest
from OpenSSL import SSL, crypto

from lab.loopback import Wire, client_context, hello_of, no_cycles, pair, reset, run
from lab.pki import Authority, LeafShape
from weir_sidecar.edge.tls_session import (
    RECORD_BYTES,
    End,
    Session,
    SessionEndedError,
    Step,
    new_context,
    note_certificate_requests,
)
from weir_sidecar.edge.waiting import wait_any

TLS12, TLS13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
VERSIONS = [TLS12, TLS13]
ROOT = Authority.root("root of the session tests")
LEAF = ROOT.leaf(LeafShape(("a.test",)))
NOBODYS = Authority.root("root that nobody knows").issued.pem
_DAY = dt.timedelta(days=1)


def server(sock, version: int | None = None) -> Session:
    context = new_context()
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    context.use_certificate(LEAF.certificate)
    context.use_privatekey(LEAF.key)
    sock.setblocking(False)
    session = Session(context, sock)
    session.connection.set_accept_state()
    return session


async def completed(session: Session) -> None:
    while (step := session.handshake()) is not Step.DONE:
        fds = (session.sock.fileno(),)
        loop = asyncio.get_running_loop()
        await (wait_any(loop, readable=fds) if step is Step.WANT_READ else wait_any(loop, writable=fds))


async def received(session: Session) -> bytes:
    """The next bytes; raises `SessionEndedError`."""
    while True:
        try:
            return session.recv()
        except SSL.WantReadError:
            await wait_any(asyncio.get_running_loop(), readable=(session.sock.fileno(),))
        except SSL.Error as error:
            raise session.ended(error) from error


async def ended(work) -> tuple[End, int | None]:
    with pytest.raises(SessionEndedError) as failure:
        await work
    return failure.value.end, failure.value.alert


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_distrusts_the_ca_sends_alert_48(version: int) -> None:
    async def main() -> None:
        near, far = pair()
        session = server(far)
        client = Wire(near, client_context(NOBODYS, version=version))
        answered = asyncio.ensure_future(client.handshake())
        assert await ended(completed(session)) == (End.ALERT, 48)
        assert session.alert == 48
        assert session.verify_error == 0
        with pytest.raises(SSL.Error):
            await answered
        client.close()
        far.close()

    run(main)


NOTIFY = b"\x15\x03\x03\x00\x02\x01\x00"
LEAVING = {
    "fin": (lambda sock: sock.close(), {End.FIN, End.CLOSE_NOTIFY}, None),
    "rst": (reset, {End.RESET}, None),
    "alert-48-in-plain": (lambda sock: (sock.send(b"\x15\x03\x03\x00\x02\x02\x30"), sock.close()), {End.ALERT}, 48),
    "alert-80-in-plain": (lambda sock: (sock.send(b"\x15\x03\x03\x00\x02\x02\x50"), sock.close()), {End.ALERT}, 80),
    "nonsense": (lambda sock: sock.send(b"\x16\x03\x03\x00\x04oops"), {End.TLS_ERROR}, None),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("how", LEAVING)
def test_how_a_client_leaves_in_the_middle_of_the_handshake(version: int, how: str) -> None:
    leave, ends, alert = LEAVING[how]

    async def main() -> None:
        near, far = pair()
        hello, _ = hello_of(version=version)
        session = server(far)
        near.send(hello)
        await wait_any(asyncio.get_running_loop(), readable=(far.fileno(),))
        assert session.handshake() is Step.WANT_READ
        assert near.recv(65536)
        leave(near)
        end, got = await ended(completed(session))
        assert end in ends
        assert got == alert
        near.close()
        far.close()

    run(main)


def test_a_close_notify_in_the_middle_of_a_tls12_handshake() -> None:
    async def main() -> None:
        near, far = pair()
        hello, _ = hello_of(version=TLS12)
        session = server(far)
        near.send(hello)
        await wait_any(asyncio.get_running_loop(), readable=(far.fileno(),))
        assert session.handshake() is Step.WANT_READ
        near.send(NOTIFY)
        assert (await ended(completed(session)))[0] is End.CLOSE_NOTIFY
        near.close()
        far.close()

    run(main)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("how", ["notify", "fin", "rst"])
@pytest.mark.parametrize("records", [0, 2])
def test_how_a_client_leaves_after_the_handshake(version: int, how: str, records: int) -> None:
    """Right behind full records its leave is found when they are read, and told when they have been taken."""
    expected = {"notify": End.CLOSE_NOTIFY, "fin": End.FIN, "rst": End.RESET}[how]

    async def main() -> None:
        near, far = pair()
        session = server(far, version)
        client = Wire(near, client_context(ROOT.issued.pem))
        await asyncio.gather(client.handshake(), completed(session))
        await client.send(b"some")
        assert await received(session) == b"some"
        session.send(
            b"read on"
        )  # and with it the tickets: a client that leaves them unread resets what it means to close
        assert await client.recv() == b"read on"
        await client.send(bytes(records * RECORD_BYTES))
        if how == "rst":
            client.reset()
        elif how == "fin":
            client.close()
        else:
            client.end()
        if records:
            await asyncio.sleep(0.02)
            assert await received(session) == bytes(records * RECORD_BYTES)
            assert session.pending()
        assert await ended(received(session)) == (expected, None)
        client.close()
        far.close()

    run(main)


def test_a_client_that_completes_tls12_and_then_sends_an_alert() -> None:
    """As NSS does. Nothing in OpenSSL sends such an alert on purpose, so a spoilt record from us provokes one."""

    async def main() -> None:
        near, far = pair()
        session = server(far, TLS12)
        client = Wire(near, client_context(ROOT.issued.pem))
        await asyncio.gather(client.handshake(), completed(session))
        far.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(SSL.Error):
            await client.recv()
        assert await ended(received(session)) == (End.ALERT, 20)
        assert session.alert == 20
        client.close()
        far.close()

    run(main)


SHAPES: dict[str, tuple[Callable[[], object], int]] = {
    "expired": (lambda: ROOT.leaf(LeafShape(("a.test",), not_before=-3 * _DAY, not_after=-_DAY)), 10),
    "not-yet-valid": (lambda: ROOT.leaf(LeafShape(("a.test",), not_before=_DAY)), 9),
    "unknown-root": (lambda: Authority.root("somebody").leaf(LeafShape(("a.test",))), 20),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_wrong_with_a_certificate_is_openssls_number(version: int, shape: str) -> None:
    make, number = SHAPES[shape]

    async def main() -> None:
        issued = make()
        near, far = pair()
        context = new_context()
        context.set_verify(SSL.VERIFY_PEER)
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(crypto.load_certificate(crypto.FILETYPE_PEM, ROOT.issued.pem))
        near.setblocking(False)
        session = Session(context, near)
        session.connection.set_connect_state()
        origin = SSL.Context(SSL.TLS_SERVER_METHOD)
        origin.set_min_proto_version(version)
        origin.set_max_proto_version(version)
        origin.use_certificate(issued.certificate)
        origin.use_privatekey(issued.key)
        peer = Wire(far, origin, server=True)
        answered = asyncio.ensure_future(peer.handshake())
        assert (await ended(completed(session)))[0] is End.TLS_ERROR
        assert session.verify_error == number
        with pytest.raises(SSL.Error):
            await answered
        # What failed is not taken for the next connection's.
        after, other = pair()
        fresh = server(other)
        client = Wire(after, client_context(ROOT.issued.pem))
        await asyncio.gather(client.handshake(), completed(fresh))
        for sock in (near, far, after, other):
            sock.close()

    run(main)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("asks", [False, True])
def test_a_certificate_request_is_noticed(version: int, asks: bool) -> None:
    async def main() -> None:
        near, far = pair()
        context = new_context()
        note_certificate_requests(context)
        near.setblocking(False)
        session = Session(context, near)
        session.connection.set_connect_state()
        origin = SSL.Context(SSL.TLS_SERVER_METHOD)
        origin.set_max_proto_version(version)
        origin.use_certificate(LEAF.certificate)
        origin.use_privatekey(LEAF.key)
        if asks:
            origin.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        peer = Wire(far, origin, server=True)
        await asyncio.gather(peer.handshake(), completed(session))
        assert session.certificate_requested is asks
        near.close()
        far.close()

    run(main)


def fill(session: Session) -> None:
    while True:
        session.send(bytes(RECORD_BYTES))


def test_a_full_socket_puts_the_close_notify_off() -> None:
    async def main() -> None:
        near, far = pair()
        session = server(far)
        client = Wire(near, client_context(ROOT.issued.pem))
        await asyncio.gather(client.handshake(), completed(session))
        with pytest.raises(SSL.WantWriteError):
            fill(session)
        assert session.notify() is False
        await client.recv(1)
        while not session.notify():
            await client.recv()
        session.half_close()
        client.close()
        far.close()

    run(main)


def test_memory_goes_when_it_is_released() -> None:
    async def main() -> None:
        near, far = pair()
        session = server(far)
        client = Wire(near, client_context(ROOT.issued.pem))
        await asyncio.gather(client.handshake(), completed(session))
        client.close()
        far.close()
        session.release()

    run(main)
    with no_cycles():
        run(main)


def test_nothing_weak_is_offered() -> None:
    """Below TLS 1.2, without forward secrecy or without AEAD there is nothing."""
    near, far = pair()
    session = Session(new_context(), near)
    for name in session.connection.get_cipher_list():
        assert name.startswith(("TLS_AES", "TLS_CHACHA20", "ECDHE-"))
        assert "GCM" in name or "CHACHA20" in name
    near.close()
    far.close()
