import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.loopback import hello_of, no_cycles, open_files, pair, reset, run
from samples.client_hello import alpn, client_hello, extension, message, records, server_name
from weir_sidecar.edge.dial import Dial, DialError
from weir_sidecar.edge.tcp_peek import Opening, Peeked, Peeker, classify
from weir_sidecar.wire import http2

HELLO, _ = hello_of("a.test")
LARGE = client_hello(server_name(b"large.test"), extension(0x3333, bytes(16_000)), alpn(b"h2"))
MANY_RECORDS = records(message(server_name(b"many.test"), extension(0x3333, bytes(2000))), sizes=[100] * 30)
REQUEST = b"GET / HTTP/1.1\r\nHost: b.test\r\nX: y\r\n\r\n"
LIMIT = 65536


class Bench:
    """A client that the test plays, and a peeker that watches it."""

    def __init__(self, timeout: float = 10.0, limit: int = LIMIT) -> None:
        self.client, self.sock = pair()
        self.sock.setblocking(False)
        self.peeker = Peeker(asyncio.get_running_loop(), self.sock, limit, timeout)

    def peek(self, dial: Dial | None = None, patience: float | None = None) -> "asyncio.Task[Peeked | None]":
        async def peek() -> Peeked | None:
            try:
                return await self.peeker.peek(dial, patience)
            finally:
                self.peeker.readers.release()

        return asyncio.get_running_loop().create_task(peek())

    def untouched(self, data: bytes) -> bool:
        """Whether all that the client sent can still be read, and readiness means what it did."""
        seen = self.sock.recv(1 << 20) if data else b""
        return seen == data and self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1

    def close(self) -> None:
        self.client.close()
        self.sock.close()


def peeking(dialogue: Callable[[Bench], Coroutine[Any, Any, None]], *, timeout: float = 10.0, limit=LIMIT) -> None:
    async def main() -> None:
        bench = Bench(timeout, limit)
        try:
            await dialogue(bench)
        finally:
            bench.close()

    before = open_files()
    with no_cycles():
        run(main)
    assert open_files() == before


def segments(data: bytes, count: int) -> list[bytes]:
    size = -(-len(data) // count)
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize(
    ("data", "count"), [(HELLO, 1), (HELLO, 4), (HELLO, len(HELLO)), (LARGE, 1), (LARGE, 4), (MANY_RECORDS, 40)]
)
def test_a_hello_in_any_number_of_segments(data: bytes, count: int) -> None:
    async def dialogue(bench: Bench) -> None:
        task = bench.peek()
        for segment in segments(data, count):
            bench.client.send(segment)
            await asyncio.sleep(0)
        peeked = await task
        assert peeked.opening is Opening.TLS
        assert peeked.hello.sni in {"a.test", "large.test", "many.test"}
        assert bench.untouched(data)

    peeking(dialogue)


def test_an_unfinished_beginning_does_not_spin() -> None:
    """What was peeked at stays readable; only what is missing may wake it."""

    async def dialogue(bench: Bench) -> None:
        looks = 0
        look = bench.peeker._look

        def counted(*, final: bool) -> Peeked | int:
            nonlocal looks
            looks += 1
            return look(final=final)

        bench.peeker._look = counted
        task = bench.peek()
        bench.client.send(LARGE[:9000])
        await asyncio.sleep(0.1)
        assert looks < 10
        bench.client.send(LARGE[9000:])
        assert (await task).opening is Opening.TLS
        del bench.peeker._look

    peeking(dialogue)


@pytest.mark.parametrize(
    ("data", "opening", "host"),
    [
        (REQUEST, Opening.HTTP, "b.test"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Opening.HTTP2, None),
        (b"EHLO lab\r\n", Opening.OPAQUE, None),
        (b"\0\0\0\x08", Opening.OPAQUE, None),
        (b"\x16\x03\x01\x00\x05\x02\0\0\x01\0", Opening.UNREADABLE_HELLO, None),
    ],
)
def test_what_the_first_bytes_are(data: bytes, opening: Opening, host: str | None) -> None:
    async def dialogue(bench: Bench) -> None:
        bench.client.send(data)
        assert await bench.peek() == Peeked(opening, host=host)
        assert bench.untouched(data)

    peeking(dialogue)


UNFINISHED = [
    (HELLO[:100], Opening.UNREADABLE_HELLO),
    (b"\x16", Opening.OPAQUE),
    (REQUEST[:20], Opening.HTTP),
    (b"GE", Opening.OPAQUE),
]


@pytest.mark.parametrize(("data", "opening"), UNFINISHED)
def test_an_unfinished_beginning_is_what_it_seems_when_its_time_is_over(data: bytes, opening: Opening) -> None:
    async def dialogue(bench: Bench) -> None:
        bench.client.send(data)
        assert await bench.peek() == Peeked(opening)
        assert bench.untouched(data)

    peeking(dialogue, timeout=0.05)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(("data", "opening"), UNFINISHED)
def test_an_unfinished_beginning_is_what_it_seems_when_no_more_will_come(
    data: bytes, opening: Opening, early: bool
) -> None:
    async def dialogue(bench: Bench) -> None:
        bench.client.send(data)
        if early:
            bench.client.shutdown(socket.SHUT_WR)
        task = bench.peek()
        await asyncio.sleep(0.01)
        if not early:
            assert not task.done()
            bench.client.shutdown(socket.SHUT_WR)
        assert await task == Peeked(opening)
        assert bench.untouched(data)

    peeking(dialogue)


def test_an_endless_head_is_bounded() -> None:
    async def dialogue(bench: Bench) -> None:
        task = bench.peek()
        bench.client.send(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000)
        assert await task == Peeked(Opening.HTTP)

    peeking(dialogue, limit=8192)


def test_a_hello_longer_than_the_limit_is_unreadable() -> None:
    async def dialogue(bench: Bench) -> None:
        task = bench.peek()
        bench.client.send(LARGE)
        assert await task == Peeked(Opening.UNREADABLE_HELLO)

    peeking(dialogue, limit=4096)


def test_silence() -> None:
    async def dialogue(bench: Bench) -> None:
        assert await bench.peek(patience=0.02) is None
        task = bench.peek()
        bench.client.shutdown(socket.SHUT_WR)
        assert await task == Peeked(Opening.SILENT)

    peeking(dialogue)


def test_a_silent_client_that_resets_is_a_connection_error() -> None:
    async def dialogue(bench: Bench) -> None:
        task = bench.peek()
        await asyncio.sleep(0.01)
        reset(bench.client)
        with pytest.raises(ConnectionError):
            await task

    peeking(dialogue)


def test_a_client_that_resets_within_its_hello_is_left_to_the_relay() -> None:
    """What it had sent can be read before the reset is."""

    async def dialogue(bench: Bench) -> None:
        task = bench.peek()
        bench.client.send(HELLO[:50])
        await asyncio.sleep(0.01)
        reset(bench.client)
        assert await task == Peeked(Opening.UNREADABLE_HELLO)
        assert bench.sock.recv(100) == HELLO[:50]
        with pytest.raises(ConnectionError):
            bench.sock.recv(100)

    peeking(dialogue)


@pytest.mark.parametrize("speaks", [True, False])
def test_a_server_that_speaks_first_or_leaves_is_heard(speaks: bool) -> None:
    async def dialogue(bench: Bench) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            dial = Dial(server.getsockname())
            task = bench.peek(dial)
            accepted, _ = server.accept()
            await asyncio.sleep(0.01)
            assert not task.done()
            if speaks:
                accepted.send(b"220 hello\r\n")
            accepted.close()
            assert await task == Peeked(Opening.SERVER_FIRST)
            dial.sock.close()

    peeking(dialogue)


@pytest.mark.parametrize(
    ("said", "opening"), [(http2.PREFACE, Opening.HTTP2), (b"\x00", Opening.OPAQUE), (b"", Opening.SERVER_FIRST)]
)
def test_a_server_of_http2_that_speaks_first_does_not_hide_its_client(said: bytes, opening: Opening) -> None:
    async def dialogue(bench: Bench) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            dial = Dial(server.getsockname())
            task = bench.peek(dial)
            accepted, _ = server.accept()
            accepted.send(http2.settings_frame([(3, 100)]))
            await asyncio.sleep(0.02)
            assert not task.done()
            bench.client.send(said)
            assert await task == Peeked(opening)
            accepted.close()
            dial.sock.close()

    peeking(dialogue, timeout=0.1)


def test_a_client_that_began_to_speak_is_heard_out_although_the_server_speaks_too() -> None:
    async def dialogue(bench: Bench) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            dial = Dial(server.getsockname())
            bench.client.send(HELLO[:50])
            task = bench.peek(dial)
            await asyncio.sleep(0.01)
            accepted, _ = server.accept()
            accepted.send(b"impatient")
            await asyncio.sleep(0.01)
            assert not task.done()
            bench.client.send(HELLO[50:])
            assert (await task).opening is Opening.TLS
            dial.sock.close()
            accepted.close()

    peeking(dialogue)


def test_a_refused_upstream_is_told_at_once() -> None:
    async def dialogue(bench: Bench) -> None:
        async def refused_at(address: tuple[str, int]) -> None:
            dial = Dial(address)
            try:
                await bench.peek(dial)
            finally:
                dial.sock.close()

        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
        with pytest.raises(DialError) as refused:
            await refused_at(address)
        assert isinstance(refused.value.cause, OSError)

    run(lambda: _with_bench(dialogue))


def test_cancelling_leaves_nothing_registered() -> None:
    async def dialogue(bench: Bench) -> None:
        task = bench.peek()
        bench.client.send(HELLO[:50])
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not asyncio.get_running_loop().remove_reader(bench.sock.fileno())

    run(lambda: _with_bench(dialogue))


async def _with_bench(dialogue: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    bench = Bench()
    try:
        await dialogue(bench)
    finally:
        bench.close()


@given(st.binary(max_size=200) | st.integers(0, len(HELLO)).map(lambda end: HELLO[:end]))
def test_all_bytes_are_something_or_need_more(data: bytes) -> None:
    first = classify(data, final=False)
    assert isinstance(first, Peeked) or first > len(data)
    assert isinstance(classify(data, final=True), Peeked)
