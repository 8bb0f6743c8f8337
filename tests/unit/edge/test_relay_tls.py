import asyncio
import hashlib
import shutil
import socket
from collections.abc import Callable

import pytest
from OpenSSL import SSL

from lab.loopback import Wire, client_context, pair, run, run_without_leftovers, server_context
from lab.pki import Authority, LeafShape
from weir_sidecar.edge import relay
from weir_sidecar.edge.relay import RelayEnd, Side
from weir_sidecar.edge.relay_tls import TLSWay
from weir_sidecar.edge.tls_session import READ_BYTES, RECORD_BYTES, End, Session, Step, new_context
from weir_sidecar.edge.waiting import wait_any

MIB = 1 << 20
TLS12, TLS13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
VERSIONS = [TLS12, TLS13]
ROOT = Authority.root("root of the relay tests")
LEAF = ROOT.leaf(LeafShape(("a.test",)))


def _session(sock, *, server: bool) -> Session:
    context = new_context()
    sock.setblocking(False)
    if server:
        context.use_certificate(LEAF.certificate)
        context.use_privatekey(LEAF.key)
    session = Session(context, sock)
    (session.connection.set_accept_state if server else session.connection.set_connect_state)()
    return session


async def _completed(session: Session) -> None:
    while (step := session.handshake()) is not Step.DONE:
        fds = (session.sock.fileno(),)
        loop = asyncio.get_running_loop()
        await (wait_any(loop, readable=fds) if step is Step.WANT_READ else wait_any(loop, writable=fds))


class Bench:
    """A TLS client and a TLS upstream with the decrypted relay between them."""

    def __init__(self) -> None:
        self.first: list[int] = []

    async def open(self, version: int) -> None:
        self._sockets = near, ours, theirs, far = (*pair(), *pair())
        self.client = Wire(near, client_context(ROOT.issued.pem, version=version))
        self.upstream = Wire(far, server_context(LEAF, version=version), server=True)
        self.down_session = _session(ours, server=True)
        self.up_session = _session(theirs, server=False)
        await asyncio.gather(
            self.client.handshake(),
            self.upstream.handshake(),
            _completed(self.down_session),
            _completed(self.up_session),
        )

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.up = TLSWay(loop, self.down_session, self.up_session, Side.CLIENT, lambda: self.first.append(1))
        self.down = TLSWay(loop, self.up_session, self.down_session, Side.UPSTREAM)
        _, ours, theirs, _ = self._sockets
        self.ended = loop.create_task(relay.run(loop, ours, theirs, self.up, self.down))

    def close(self) -> None:
        self.down_session.release()
        self.up_session.release()
        for sock in self._sockets:
            sock.close()


def through(dialogue: Callable[[Bench], object], version: int = TLS13) -> RelayEnd:
    async def main() -> RelayEnd:
        bench = Bench()
        await bench.open(version)
        bench.start()
        try:
            await dialogue(bench)
            return await bench.ended
        finally:
            bench.close()

    return run_without_leftovers(main)


def ordered(bench: Bench, first: str) -> tuple[Wire, Wire]:
    return (bench.client, bench.upstream) if first == "client" else (bench.upstream, bench.client)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("first", ["client", "upstream"])
def test_each_half_closes_on_its_own(version: int, first: str) -> None:
    async def dialogue(bench: Bench) -> None:
        one, other = ordered(bench, first)
        await one.send(b"question")
        one.end()
        assert await other.read_all() == b"question"
        assert not bench.ended.done()
        await other.send(b"answer" * 10000)
        other.end()
        assert await one.read_all() == b"answer" * 10000
        assert bench.first == [1]

    end = through(dialogue, version)
    assert (end.first, end.end) == (Side(first), End.CLOSE_NOTIFY)
    assert {end.bytes_up, end.bytes_down} == {8, 60000}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("first", ["client", "upstream"])
def test_a_stream_cut_short_is_cut_short_on_the_other_side(version: int, first: str) -> None:
    async def dialogue(bench: Bench) -> None:
        one, other = ordered(bench, first)
        await one.send(b"half")
        assert await other.recv() == b"half"
        await other.send(b"read on")
        assert await one.recv() == b"read on"
        one.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(SSL.SysCallError) as cut:
            await other.recv()
        assert cut.value.args[0] == -1
        other.sock.shutdown(socket.SHUT_WR)

    end = through(dialogue, version)
    assert (end.first, end.end) == (Side(first), End.FIN)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("first", ["client", "upstream"])
def test_a_reset_is_passed_on_as_a_reset(version: int, first: str) -> None:
    async def dialogue(bench: Bench) -> None:
        one, other = ordered(bench, first)
        await one.send(b"some")
        assert await other.recv() == b"some"
        one.reset()
        with pytest.raises(SSL.SysCallError) as broken:
            await other.recv()
        assert broken.value.args[0] == 104

    end = through(dialogue, version)
    assert (end.first, end.end) == (Side(first), End.RESET)


@pytest.mark.parametrize("first", ["client", "upstream"])
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_reset_right_behind_bytes_is_not_missed(first: str, size: int) -> None:
    """libuv tells of an error once: with the bytes that come before it."""

    async def dialogue(bench: Bench) -> None:
        one, other = ordered(bench, first)
        await one.send(b"some")
        assert await other.recv() == b"some"
        await other.send(b"read on")
        assert await one.recv() == b"read on"
        assert one.tls is not None
        for at in range(0, size, 16384):
            one.tls.send(b"x" * min(16384, size - at))
        one.reset()
        got = 0
        while got < size:
            got += len(await other.recv())
        with pytest.raises(SSL.SysCallError):
            await other.recv()

    end = through(dialogue, TLS13)
    assert (end.first, end.end) == (Side(first), End.RESET)


@pytest.mark.parametrize("version", VERSIONS)
def test_bulk_both_ways_at_once_is_whole(version: int) -> None:
    data = b"".join(hashlib.sha256(number.to_bytes(4)).digest() for number in range(8 * MIB // 32))

    async def send(wire: Wire) -> None:
        await wire.send(data)
        wire.end()

    async def dialogue(bench: Bench) -> None:
        ends = await asyncio.gather(
            send(bench.client), send(bench.upstream), bench.client.read_all(), bench.upstream.read_all()
        )
        assert ends[2] == data
        assert ends[3] == data

    end = through(dialogue, version)
    assert (end.bytes_up, end.bytes_down) == (8 * MIB, 8 * MIB)


@pytest.mark.parametrize("size", [1, 4 * MIB, 4 * MIB + 1, 9 * MIB + 777, 9 * MIB + 16000])
def test_a_slow_reader_gets_it_all_and_the_end_as_it_was(size: int) -> None:
    """Also when the socket is full at the moment of the close_notify."""

    async def dialogue(bench: Bench) -> None:
        sender = asyncio.ensure_future(bench.upstream.send(bytes(size)))
        await asyncio.sleep(0.1)
        got = 0
        while got < size:
            got += len(await bench.client.recv())
            if sender.done() and bench.upstream.sock.fileno() >= 0 and not bench.upstream.tls.get_shutdown():
                bench.upstream.end()
            await asyncio.sleep(0)
        await sender
        if not bench.upstream.tls.get_shutdown():
            bench.upstream.end()
        assert await bench.client.recv() == b""
        bench.client.end()

    end = through(dialogue)
    assert end.bytes_down == size


def test_what_is_held_for_a_client_that_never_reads_is_bounded() -> None:
    async def dialogue(bench: Bench) -> None:
        flood = asyncio.ensure_future(bench.upstream.send(bytes(64 * MIB)))
        await asyncio.sleep(0.2)
        assert not flood.done()
        assert bench.down._held is not None
        assert len(bench.down._held) < READ_BYTES + RECORD_BYTES
        bench.client.reset()
        with pytest.raises(SSL.SysCallError):
            await flood

    end = through(dialogue)
    assert (end.first, end.end) == (Side.CLIENT, End.RESET)


def test_what_came_before_the_start_is_not_forgotten() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.open(TLS13)
        await bench.upstream.send(b"x" * 100)
        await asyncio.sleep(0.05)
        assert bench.up_session.connection.recv(10) == b"x" * 10
        assert bench.up_session.connection.pending() == 90
        bench.start()
        assert await bench.client.recv() == b"x" * 90
        bench.client.end()
        bench.upstream.end()
        await bench.ended
        bench.close()

    run(main)


def test_a_client_that_is_gone_before_the_start_ends_the_relay() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.open(TLS13)
        await bench.upstream.send(b"x" * 100)
        await asyncio.sleep(0.05)
        assert bench.up_session.connection.recv(10)
        bench.client.reset()
        await asyncio.sleep(0.05)
        bench.start()
        assert (await bench.ended).end is End.RESET
        bench.close()

    run(main)


def test_an_alert_ends_the_relay_as_an_alert() -> None:
    async def dialogue(bench: Bench) -> None:
        # Spoilt ciphertext: the client answers with bad_record_mac.
        bench.down_session.sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(SSL.Error):
            await bench.client.recv()
        with pytest.raises(SSL.SysCallError):
            await bench.upstream.recv()
        assert bench.down_session.alert == 20

    end = through(dialogue)
    assert (end.first, end.end) == (Side.CLIENT, End.ALERT)


def test_cancelling_resets_both_ends() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.open(TLS13)
        bench.start()
        await bench.client.send(b"x")
        assert await bench.upstream.recv() == b"x"
        bench.ended.cancel()
        for wire in (bench.client, bench.upstream):
            with pytest.raises(SSL.SysCallError):
                await wire.recv()
        with pytest.raises(asyncio.CancelledError):
            await bench.ended
        assert bench.up.total == 1
        bench.close()

    run(main)


@pytest.mark.parametrize("gathers", [False, True])
def test_a_reader_that_fails_ends_its_flow_and_says_so(gathers: bool) -> None:
    told: list[object] = []

    def fail(data: bytes) -> bytes:
        raise RuntimeError(data.decode())

    async def dialogue(bench: Bench) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        bench.up.gathers, bench.up.on_bytes = gathers, fail
        await bench.client.send(b"odd")
        for wire in (bench.client, bench.upstream):
            with pytest.raises(SSL.SysCallError):
                await wire.recv()

    assert through(dialogue).end is End.OURS
    assert [str(error) for error in told] == ["odd"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the program openssl is not installed")
@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
def test_a_client_that_wants_small_records_gets_every_byte(option: str) -> None:
    """RFC 6066, section 4: small devices ask for 512 bytes a record, and OpenSSL then writes one record a call."""
    data = b"".join(number.to_bytes(4) for number in range(50_000))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            port = listener.getsockname()[1]
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-maxfraglen", "512", "-quiet", option]
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
            near, _ = await loop.sock_accept(listener)
        ours, far = pair()
        client, server = _session(near, server=True), _session(ours, server=False)
        upstream = Wire(far, server_context(LEAF), server=True)
        await asyncio.gather(_completed(client), _completed(server), upstream.handshake())
        up, down = TLSWay(loop, client, server, Side.CLIENT), TLSWay(loop, server, client, Side.UPSTREAM)
        ended = loop.create_task(relay.run(loop, near, ours, up, down))
        await upstream.send(data)
        upstream.end()
        stdout, _ = await process.communicate()
        assert stdout == data
        upstream.close()
        await ended

    run(main)
