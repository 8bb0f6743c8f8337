"""HTTP/2 on real sockets without TLS: how connections end that cannot go on, and that nothing is left of them."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from lab.edge import Surroundings
from lab.loopback import no_cycles, open_files, pair, run
from weir_sidecar.contract.config import Action, Match, Rule, SidecarConfig
from weir_sidecar.contract.flow import FlowError, Protocol
from weir_sidecar.contract.http import PathMatch, RequestAction, RequestMatch, RequestRule
from weir_sidecar.contract.request import RequestError, RequestRecord
from weir_sidecar.core.verdict import FlowFacts
from weir_sidecar.edge import relay
from weir_sidecar.edge.plain_session import PlainSession
from weir_sidecar.edge.relay import RelayEnd, Side
from weir_sidecar.edge.relay_http2 import HTTP2Reader
from weir_sidecar.edge.relay_tls import TLSWay
from weir_sidecar.edge.requests import FlowRequests
from weir_sidecar.wire import http2
from weir_sidecar.wire.hpack import encode
from weir_sidecar.wire.http2 import ErrorCode

BEGIN = http2.PREFACE + http2.settings_frame([])
RULES = (
    RequestRule("no", RequestMatch(paths=(PathMatch("/no"),)), RequestAction.DENY),
    RequestRule("slow", RequestMatch(paths=(PathMatch("/slow"),)), delay=0.05),
    RequestRule("never", RequestMatch(paths=(PathMatch("/never"),)), delay=3000.0),
)
CONFIG = SidecarConfig(rules=(Rule("web", Match(hosts=("a.test",)), Action.INTERCEPT, http=RULES),))


def request(stream: int, path: bytes) -> bytes:
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", path), (b":authority", b"a.test"))
    return http2.headers_frames(http2.END_STREAM, stream, encode(fields))


class Bench:
    """A client and an upstream that the test plays, and the relay between them."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.client, near = pair()
        self.upstream, far = pair()
        for sock in (self.client, self.upstream, near, far):
            sock.setblocking(False)
        self._sockets = near, far
        self.surroundings = Surroundings(CONFIG)
        facts = FlowFacts(Protocol.HTTP, "192.0.2.1", 80, "a.test", named_by_client=True, address_from_dns=True)
        self.reader = HTTP2Reader(self.loop, FlowRequests(self.surroundings.context, "f", facts, "web"))

    async def relay(self) -> RelayEnd:
        near, far = self._sockets
        client, upstream = PlainSession(near), PlainSession(far)
        up, down = TLSWay(self.loop, client, upstream, Side.CLIENT), TLSWay(self.loop, upstream, client, Side.UPSTREAM)
        self.reader.attach(up, down)
        try:
            return await relay.run(self.loop, near, far, up, down)
        finally:
            self.reader.close(RequestError.CLIENT_GONE)

    @property
    def records(self) -> list[RequestRecord]:
        return self.surroundings.requests

    async def read(self, sock: socket.socket, size: int) -> bytes:
        got = b""
        async with asyncio.timeout(5):
            while len(got) < size:
                got += await self.loop.sock_recv(sock, size - len(got)) or b"<end>"
        return got

    async def begin(self) -> None:
        self.client.send(BEGIN)
        assert await self.read(self.upstream, len(BEGIN)) == BEGIN
        self.upstream.send(http2.settings_frame([]))
        assert await self.read(self.client, 9) == http2.settings_frame([])


def relaying(dialogue: Callable[[Bench, "asyncio.Task[RelayEnd]"], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench()
        task = asyncio.create_task(bench.relay())
        try:
            await dialogue(bench, task)
            bench.client.close()
            bench.upstream.close()
            async with asyncio.timeout(5):
                await task
        finally:
            bench.client.close()
            bench.upstream.close()

    before = open_files()
    with no_cycles():
        run(main)
    assert open_files() == before


def test_a_client_that_breaks_the_protocol_is_told_and_its_last_bytes_do_not_reset_that_away() -> None:
    async def dialogue(bench: Bench, task: "asyncio.Task[RelayEnd]") -> None:
        await bench.begin()
        bench.client.send(http2.headers_frames(1, 1, b"\x80") + b"more" * 1000)
        told = await bench.read(bench.client, 17)
        assert told[:17] == http2.goaway(0, ErrorCode.COMPRESSION_ERROR)[:2] + told[2:17]
        assert told[3] == http2.GOAWAY
        assert told[16] == ErrorCode.COMPRESSION_ERROR
        assert await bench.read(bench.upstream, 17) == http2.goaway(0, ErrorCode.INTERNAL_ERROR)
        while await bench.loop.sock_recv(bench.client, 4096):
            pass
        bench.client.close()
        assert await bench.read(bench.upstream, 1) == b"<end>"
        bench.upstream.close()
        await task
        assert bench.reader.error is FlowError.CLIENT_HTTP_MALFORMED

    relaying(dialogue)


def test_an_upstream_that_breaks_the_protocol() -> None:
    async def dialogue(bench: Bench, task: "asyncio.Task[RelayEnd]") -> None:
        await bench.begin()
        bench.client.send(request(1, b"/"))
        assert await bench.read(bench.upstream, len(request(1, b"/"))) == request(1, b"/")
        bench.upstream.send(http2.headers_frames(1, 1, b"\x80"))
        assert await bench.read(bench.client, 17) == http2.goaway(1, ErrorCode.INTERNAL_ERROR)
        assert await bench.read(bench.client, 1) == b"<end>"
        assert (await bench.read(bench.upstream, 17))[16] == ErrorCode.COMPRESSION_ERROR
        bench.client.close()
        bench.upstream.close()
        await task
        assert bench.reader.error is FlowError.UPSTREAM_HTTP_MALFORMED
        assert [(one.path, one.error) for one in bench.records] == [("/", RequestError.CLIENT_GONE)]

    relaying(dialogue)


def test_a_delay_ends_by_itself_and_one_that_does_not_ends_with_the_connection() -> None:
    async def dialogue(bench: Bench, _: "asyncio.Task[RelayEnd]") -> None:
        await bench.begin()
        slow = request(1, b"/slow")
        bench.client.send(slow + request(3, b"/never"))
        assert (await bench.read(bench.upstream, 9))[3:9] == slow[3:9]

    relaying(dialogue)


def test_a_client_that_asks_and_never_reads_what_it_is_refused_is_reset() -> None:
    async def dialogue(bench: Bench, task: "asyncio.Task[RelayEnd]") -> None:
        await bench.begin()
        stream = 1
        while not task.done():
            data = b"".join(request(number, b"/no") for number in range(stream, stream + 400, 2))
            stream += 400
            async with asyncio.timeout(5):
                with contextlib.suppress(ConnectionError):
                    await bench.loop.sock_sendall(bench.client, data)
            await asyncio.sleep(0)
        assert len(bench.records) > 100

    relaying(dialogue)


def test_many_small_writes_stay_in_order() -> None:
    async def dialogue(bench: Bench, _: "asyncio.Task[RelayEnd]") -> None:
        await bench.begin()
        frames = [http2.frame(http2.PING, 0, 0, number.to_bytes(8)) for number in range(3000)]
        for one in frames:
            await bench.loop.sock_sendall(bench.client, one)
        assert await bench.read(bench.upstream, 17 * 3000) == b"".join(frames)

    relaying(dialogue)
