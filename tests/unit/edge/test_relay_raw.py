import asyncio
import hashlib
import resource
import socket
from collections.abc import Callable

import pytest

from lab.loopback import Wire, no_more_files, open_files, pair, run, run_without_leftovers
from weir_sidecar.edge import relay
from weir_sidecar.edge.relay import RelayEnd, Side
from weir_sidecar.edge.relay_raw import RawWay
from weir_sidecar.edge.tls_session import End

MIB = 1 << 20


class Bench:
    """A client and an upstream with a relay between them."""

    def __init__(self) -> None:
        client, near = pair()
        far, upstream = pair()
        self.client, self.upstream = Wire(client), Wire(upstream)
        self.near, self.far = near, far
        near.setblocking(False)
        far.setblocking(False)
        loop = asyncio.get_running_loop()
        self.up = RawWay(loop, near, far, Side.CLIENT)
        self.down = RawWay(loop, far, near, Side.UPSTREAM)
        self.ended = loop.create_task(relay.run(loop, near, far, self.up, self.down))

    def close(self) -> None:
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


@pytest.mark.parametrize("first", ["client", "upstream"])
def test_each_half_closes_on_its_own(first: str) -> None:
    async def dialogue(bench: Bench) -> None:
        one, other = bench.client, bench.upstream
        if first == "upstream":
            one, other = other, one
        await one.send(b"question")
        one.end()
        assert await other.read_all() == b"question"
        assert not bench.ended.done()
        await other.send(b"answer" * 1000)
        other.end()
        assert await one.read_all() == b"answer" * 1000

    end = through(dialogue)
    sizes = {end.bytes_up, end.bytes_down}
    assert (end.first, end.end, sizes) == (Side(first), End.FIN, {8, 6000})


@pytest.mark.parametrize("first", ["client", "upstream"])
def test_a_reset_is_passed_on_as_a_reset(first: str) -> None:
    async def dialogue(bench: Bench) -> None:
        one, other = bench.client, bench.upstream
        if first == "upstream":
            one, other = other, one
        await one.send(b"some")
        assert await other.recv() == b"some"
        one.reset()
        with pytest.raises(ConnectionResetError):
            await other.recv()

    end = through(dialogue)
    assert (end.first, end.end) == (Side(first), End.RESET)


@pytest.mark.parametrize("first", ["client", "upstream"])
@pytest.mark.parametrize("warm", [0, MIB])
def test_a_reset_right_behind_bytes_is_not_missed(first: str, warm: int) -> None:
    """libuv tells of an error once: with the bytes that come before it."""

    async def dialogue(bench: Bench) -> None:
        one, other = bench.client, bench.upstream
        if first == "upstream":
            one, other = other, one
        task = asyncio.ensure_future(one.send(bytes(warm) + b"a"))
        got = 0
        while got < warm + 1:
            got += len(await other.recv())
        await task
        one.sock.send(b"last words")
        one.reset()
        assert await other.recv() == b"last words"
        with pytest.raises(ConnectionResetError):
            await other.recv()

    end = through(dialogue)
    assert (end.first, end.end) == (Side(first), End.RESET)


def test_a_reset_is_passed_on_while_the_other_end_does_not_read() -> None:
    async def dialogue(bench: Bench) -> None:
        flood = asyncio.ensure_future(bench.upstream.send(bytes(64 * MIB)))
        await asyncio.sleep(0.05)
        assert not flood.done()
        bench.client.reset()
        with pytest.raises(ConnectionError):
            await flood

    end = through(dialogue)
    assert (end.first, end.end) == (Side.CLIENT, End.RESET)


def blocks(count: int) -> list[bytes]:
    return [hashlib.sha256(number.to_bytes(4)).digest() * 2048 for number in range(count)]


def test_bulk_both_ways_at_once_is_spliced_and_whole() -> None:
    data = blocks(64 * MIB // 65536)
    expected = hashlib.sha256(b"".join(data)).digest()
    pipes: set[tuple[int, int] | None] = set()

    async def send(wire: Wire) -> None:
        for block in data:
            await wire.send(block)
        wire.end()

    async def receive(wire: Wire) -> bytes:
        state = hashlib.sha256()
        while part := await wire.recv(1 << 18):
            state.update(part)
        return state.digest()

    async def dialogue(bench: Bench) -> None:
        ends = await asyncio.gather(
            send(bench.client), send(bench.upstream), receive(bench.client), receive(bench.upstream)
        )
        pipes.update((bench.up._pipe, bench.down._pipe))
        assert ends[2:] == [expected, expected]

    end = through(dialogue)
    assert (end.bytes_up, end.bytes_down) == (64 * MIB, 64 * MIB)


def test_a_stream_that_grows_gets_a_pipe_and_gives_it_back() -> None:
    async def dialogue(bench: Bench) -> None:
        for _ in range(64):
            await bench.client.send(bytes(65536))
            got = 0
            while got < 65536:
                got += len(await bench.upstream.recv())
        assert bench.up._pipe is not None
        assert bench.down._pipe is None
        bench.client.end()
        bench.upstream.end()

    assert through(dialogue).bytes_up == 4 * MIB


def test_without_descriptors_the_copy_goes_on() -> None:
    async def dialogue(bench: Bench) -> None:
        with no_more_files():
            for _ in range(32):
                await bench.client.send(bytes(65536))
                got = 0
                while got < 65536:
                    got += len(await bench.upstream.recv())
        assert bench.up._pipe is None
        bench.client.end()
        bench.upstream.end()

    assert through(dialogue).bytes_up == 2 * MIB


@pytest.mark.parametrize("warm", [0, MIB])
def test_a_slow_reader_holds_up_the_sender_and_bounds_what_is_held(warm: int) -> None:
    """Held by the relay: one chunk, or one pipe; the rest is the two kernels' socket buffers'."""

    async def dialogue(bench: Bench) -> None:
        for sock in (bench.near, bench.far, bench.client.sock, bench.upstream.sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sent = warm
        if warm:
            task = asyncio.ensure_future(bench.upstream.send(bytes(warm)))
            got = 0
            while got < warm:
                got += len(await bench.client.recv())
            await task
            assert bench.down._pipe is not None
        bench.upstream.sock.setblocking(False)
        for _ in range(40):
            await asyncio.sleep(0.005)
            try:
                while True:
                    sent += bench.upstream.sock.send(bytes(65536))
            except BlockingIOError:
                pass
        assert sent - warm < 4 * MIB
        got = warm
        while got < sent:
            got += len(await bench.client.recv())
        bench.client.end()
        bench.upstream.end()

    assert through(dialogue).bytes_down > warm


@pytest.mark.parametrize("warm", [0, MIB])
def test_urgent_data_neither_spins_nor_stops_a_way(warm: int) -> None:
    async def dialogue(bench: Bench) -> None:
        task = asyncio.ensure_future(bench.client.send(bytes(warm) + b"before"))
        got = b""
        while len(got) < warm + 6:
            got += await bench.upstream.recv()
        await task
        bench.client.sock.send(b"!", socket.MSG_OOB)
        await bench.client.send(b"after")
        assert await bench.upstream.recv() == b"after"
        # With the urgent byte skipped there is nothing left to be told of: the loop sleeps.
        used = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.sleep(0.2)
        more = resource.getrusage(resource.RUSAGE_SELF)
        assert more.ru_utime + more.ru_stime - used.ru_utime - used.ru_stime < 0.1
        bench.client.end()
        bench.upstream.end()

    through(dialogue)


def test_cancelling_resets_both_ends() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.client.send(b"x")
        assert await bench.upstream.recv() == b"x"
        bench.ended.cancel()
        for wire in (bench.client, bench.upstream):
            with pytest.raises(ConnectionResetError):
                await wire.recv()
        with pytest.raises(asyncio.CancelledError):
            await bench.ended
        assert bench.up.total == 1
        bench.close()

    before = open_files()
    run(main)
    assert open_files() == before


def test_a_sink_that_is_gone_before_the_start_ends_the_relay() -> None:
    async def dialogue(bench: Bench) -> None:
        bench.client.reset()
        await bench.upstream.send(b"x")
        with pytest.raises(ConnectionResetError):
            await bench.upstream.recv()

    assert through(dialogue).end is End.RESET
