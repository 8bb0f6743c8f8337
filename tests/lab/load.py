"""A light and steady load: so many new connections and DNS queries a second, each timed, and how each ended.

`python -m lab.load SPEC.json RESULTS.json` is what a lab run starts inside a pod. It says `ready`, begins on SIGUSR1, ends
on SIGUSR2, writes what became of every attempt, says `done`, and leaves when its standard input ends. Beside the short ones some connections stay open and say a word now
and then. Times are of the monotonic clock, which is the same in all namespaces.
"""

import asyncio
import contextlib
import itertools
import json
import random
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.probe_base import context, named

PATIENCE = 15.0
"""Seconds after which a connection has failed."""
DNS_TIMEOUT, DNS_ATTEMPTS = 5.0, 2
"""As the C library has it (resolv.conf(5))."""
WORD_EACH = 0.1


@dataclass(frozen=True)
class Target:
    """Where to go; `kind` is echo, tls (an echo behind it), http or dns."""

    kind: str
    address: str
    port: int
    host: str | None = None


@dataclass(frozen=True)
class Spec:
    """Rates are per second. Targets take turns; `lasting` ones stay open."""

    ca: str
    connections: int
    queries: int
    targets: list[Target]
    resolver: str
    name: str
    lasting: list[Target] = field(default_factory=list)

    @staticmethod
    def read(path: str) -> "Spec":
        values = json.loads(Path(path).read_text())
        for name in ("targets", "lasting"):
            values[name] = [Target(**target) for target in values[name]]
        return Spec(**values)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Attempt:
    """One connection or query. `error` None: all went well; `retries` counts datagrams that had to be sent again."""

    kind: str
    started: float
    ended: float
    error: str | None = None
    retries: int = 0


@dataclass(frozen=True)
class Lasting:
    """One connection that stays: when it was opened, when it last said and heard a word, and how it broke, if it did."""

    kind: str
    opened: float
    heard: float
    error: str | None = None


class _Client:
    """Makes connections and queries."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._tls = context(spec.ca)

    @contextlib.asynccontextmanager
    async def _connected(self, target: Target) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        tls: dict[str, Any] = {"ssl": self._tls, "server_hostname": target.host} if target.kind == "tls" else {}
        reader, writer = await asyncio.open_connection(target.address, target.port, **tls)
        try:
            yield reader, writer
        finally:
            writer.close()
            # Everything was said and heard; how the other side takes its leave is not measured here.
            with contextlib.suppress(OSError, TimeoutError):
                await writer.wait_closed()

    async def connection(self, target: Target) -> int:
        async with self._connected(target) as (reader, writer):
            if target.kind == "http":
                writer.write(f"GET /hello HTTP/1.1\r\nhost: {target.host}\r\nconnection: close\r\n\r\n".encode())
                answer = await reader.read()
                if not answer.startswith(b"HTTP/1.1 200 "):
                    raise ConnectionError(f"answer {answer[:12]!r}")
            else:
                await self._word(reader, writer)
        return 0

    @staticmethod
    async def _word(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = random.randbytes(100)
        writer.write(said)
        if await reader.readexactly(len(said)) != said:
            raise ConnectionError("garbled")

    async def lasting(self, target: Target, heard: Callable[[float], None]) -> None:
        async with self._connected(target) as (reader, writer):
            while True:
                await self._word(reader, writer)
                heard(time.monotonic())
                await asyncio.sleep(WORD_EACH)

    async def query(self, number: int) -> int:
        """One A query over UDP, sent again as the C library would; returns how often."""
        labels = f"n{number}.{self._spec.name}".split(".")
        name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
        data = struct.pack("!HHHHHH", random.getrandbits(16), 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)
        loop = asyncio.get_running_loop()
        for retry in range(DNS_ATTEMPTS):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.connect((self._spec.resolver, 53))
                sock.send(data)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DNS_TIMEOUT):
                        answer = await loop.sock_recv(sock, 4096)
                    _, flags, _, answers = struct.unpack_from("!HHHH", answer)
                    if answer[:2] != data[:2] or flags & 0xF or answers != 1:
                        raise ConnectionError(f"answer {answer[:12].hex()}")
                    return retry
        raise TimeoutError


class _Load:
    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._client = _Client(spec)
        self._attempts: list[Attempt] = []
        self._lasting: list[Lasting] = []
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> dict[str, Any]:
        begin, end = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, begin.set)
        loop.add_signal_handler(signal.SIGUSR2, end.set)
        print("ready", flush=True)
        await begin.wait()
        targets = itertools.cycle(self._spec.targets)
        numbers = itertools.count()
        paces = [
            self._pace(self._spec.connections, lambda: self._one_connection(next(targets))),
            self._pace(self._spec.queries, lambda: self._attempt("dns", self._client.query(next(numbers)))),
            *(self._keep(target) for target in self._spec.lasting),
        ]
        tasks = [loop.create_task(pace) for pace in paces]
        await end.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if self._running:
            await asyncio.wait(self._running)
        return {"attempts": [asdict(a) for a in self._attempts], "lasting": [asdict(flow) for flow in self._lasting]}

    async def _pace(self, rate: int, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        due = time.monotonic()
        while True:
            task = asyncio.get_running_loop().create_task(start())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _one_connection(self, target: Target) -> Coroutine[Any, Any, None]:
        return self._attempt(target.kind, self._client.connection(target))

    async def _attempt(self, kind: str, work: Awaitable[int]) -> None:
        started = time.monotonic()
        retries, error = 0, None
        try:
            async with asyncio.timeout(PATIENCE):
                retries = await work
        except (OSError, EOFError, ssl.SSLError) as failure:
            error = _named(failure)
        self._attempts.append(Attempt(kind, started, time.monotonic(), error, retries))

    async def _keep(self, target: Target) -> None:
        """Keep one lasting connection; when it breaks, note it and open the next."""
        while True:
            opened = last = time.monotonic()

            def heard(at: float) -> None:
                nonlocal last
                last = at

            error = None
            try:
                await self._client.lasting(target, heard)
            except (OSError, EOFError) as failure:
                error = _named(failure)
                await asyncio.sleep(WORD_EACH)
            finally:
                self._lasting.append(Lasting(target.kind, opened, last, error))


def _named(failure: Exception) -> str:
    return named(failure) if isinstance(failure, OSError) else "ended early"


def main(spec_file: str, results_file: str) -> None:
    Path(results_file).write_text(json.dumps(asyncio.run(_Load(Spec.read(spec_file)).run())))
    print("done", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
