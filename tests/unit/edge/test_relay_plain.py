"""Bodies in the clear: spliced as far as they need no reading, in order with what is read and with what is put in."""

import asyncio
import hashlib
import socket
from collections.abc import Callable

import msgspec
import pytest

from lab.loopback import Wire, no_more_files, pair, run_without_leftovers
from weir_sidecar.edge import relay
from weir_sidecar.edge.plain_session import PlainSession
from weir_sidecar.edge.relay import RelayEnd, Side
from weir_sidecar.edge.relay_plain import PlainWay
from weir_sidecar.edge.tls_session import End

MIB = 1 << 20
HEAD = b"head"
BODY = hashlib.sha256(b"body").digest() * (4 * MIB // 32)


class Body(msgspec.Struct):
    left: int


class Bench:
    """The upstream says a head and a body; a reader that is told of it knows how long the body is."""

    def __init__(self) -> None:
        client, near = pair()
        far, upstream = pair()
        self.client, self.upstream = Wire(client), Wire(upstream)
        self.near, self.far = near, far
        near.setblocking(False)
        far.setblocking(False)
        loop = asyncio.get_running_loop()
        ours, theirs = PlainSession(near), PlainSession(far)
        self.up = PlainWay(loop, ours, theirs, Side.CLIENT)
        self.down = PlainWay(loop, theirs, ours, Side.UPSTREAM)
        self.down.on_bytes = self._read
        self.heard = b""
        self.body = Body(0)
        self.ended = loop.create_task(relay.run(loop, near, far, self.up, self.down))

    def _read(self, data: bytes) -> bytes:
        if self.body.left:  # its last bytes
            assert len(data) >= self.body.left
            self.heard += data[self.body.left - 1 :]
            self.body.left = 0
        else:
            self.heard += data[: len(HEAD)]
            self.body.left = len(BODY) - (len(data) - len(HEAD))
            self.down.unread = self.body
        return data

    async def received(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            data += await self.client.recv(1 << 18)
        return bytes(data)

    def close(self) -> None:
        self.down.on_bytes = None
        self.client.close()
        self.upstream.close()


def through(dialogue: Callable[[Bench], object]) -> RelayEnd:
    async def main() -> RelayEnd:
        bench = Bench()
        try:
            await dialogue(bench)
            return await bench.ended
        finally:
            bench.close()

    return run_without_leftovers(main)


def end_both(bench: Bench) -> None:
    bench.client.end()
    bench.upstream.end()


@pytest.mark.parametrize("pipes", [True, False])
def test_a_body_passes_unread_and_its_last_byte_and_what_follows_are_read(pipes: bool) -> None:
    async def exchange(bench: Bench) -> None:
        for _ in range(2):
            task = asyncio.ensure_future(bench.upstream.send(HEAD + BODY))
            assert await bench.received(len(HEAD + BODY)) == HEAD + BODY
            await task

    async def dialogue(bench: Bench) -> None:
        if pipes:
            await exchange(bench)
        else:
            with no_more_files():
                await exchange(bench)
        assert (bench.down._pipe is not None) is pipes
        assert bench.heard == (HEAD + BODY[-1:]) * 2
        end_both(bench)

    end = through(dialogue)
    assert (end.bytes_down, end.first) == (2 * len(HEAD + BODY), Side.CLIENT)


def small_buffers(bench: Bench) -> None:
    for sock in (bench.near, bench.far, bench.client.sock, bench.upstream.sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)


async def clogged(bench: Bench) -> asyncio.Future[None]:
    """The client does not read: what it does not take stays in the pipe, which bounds it."""
    small_buffers(bench)
    task = asyncio.ensure_future(bench.upstream.send(HEAD + BODY))
    for _ in range(200):
        await asyncio.sleep(0.005)
        if bench.down._pipe is not None and bench.down._pipe.held:
            break
    assert bench.down._pipe is not None
    assert 0 < bench.down._pipe.held <= MIB
    assert not task.done()
    return task


def test_what_is_put_in_comes_behind_what_is_in_the_pipe() -> None:
    async def dialogue(bench: Bench) -> None:
        task = await clogged(bench)
        bench.down.pause()
        bench.down.inject(b"ours")
        bench.down.go_on()
        held = bench.down.total + bench.down._pipe.held
        data = await bench.received(len(HEAD + BODY) + 4)
        assert data == (HEAD + BODY)[:held] + b"ours" + (HEAD + BODY)[held:]
        await task
        end_both(bench)

    through(dialogue)


def test_a_way_that_finishes_while_its_pipe_is_full_passes_on_what_is_in_it() -> None:
    async def dialogue(bench: Bench) -> None:
        task = await clogged(bench)
        held = bench.down.total + bench.down._pipe.held
        bench.down.finish()
        assert await bench.client.read_all() == (HEAD + BODY)[:held]
        task.cancel()
        bench.client.end()
        bench.upstream.close()

    through(dialogue)


@pytest.mark.parametrize("first", ["client", "upstream"])
def test_a_reset_while_the_pipe_is_full_resets_the_other_end(first: str) -> None:
    async def dialogue(bench: Bench) -> None:
        task = await clogged(bench)
        task.cancel()
        if first == "client":
            bench.client.reset()
        else:
            bench.upstream.reset()
            with pytest.raises(ConnectionResetError):
                await bench.client.read_all()

    end = through(dialogue)
    assert (end.first, end.end) == (Side(first), End.RESET)


def test_an_end_within_a_body_is_an_end() -> None:
    async def dialogue(bench: Bench) -> None:
        task = asyncio.ensure_future(bench.upstream.send(HEAD + BODY[:MIB]))
        assert await bench.received(len(HEAD) + MIB) == HEAD + BODY[:MIB]
        await task
        bench.upstream.end()
        assert await bench.client.recv() == b""
        bench.client.end()

    end = through(dialogue)
    assert (end.first, end.end, end.bytes_down) == (Side.UPSTREAM, End.FIN, len(HEAD) + MIB)
