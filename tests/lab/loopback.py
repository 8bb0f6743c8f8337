"""Sockets of this machine for tests of the edge: pairs, TLS on either end, and what a test wants to know of them."""

import asyncio
import gc
import resource
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto

from lab.pki import Issued
from lab.raw_servers import reset
from weir_sidecar.wire.clienthello import ClientHello, parse

PATIENCE = 20.0


def run[T](main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a test's coroutine, bounded in time; what no task has dealt with is an error of the test."""
    unhandled: list[dict[str, Any]] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        async with asyncio.timeout(PATIENCE):
            return await main()

    with asyncio.Runner() as runner:
        result = runner.run(bounded())
        gc.collect()
    assert not unhandled
    return result


def pair(family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets of this machine, blocking, without delay."""
    with socket.socket(family) as listener:
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        listener.listen(1)
        near = socket.create_connection(listener.getsockname()[:2], timeout=PATIENCE)
        far, _ = listener.accept()
    for sock in (near, far):
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


@contextmanager
def no_more_files() -> Iterator[None]:
    """Inside, this process gets no further descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path("/dev/null").open() as lowest:
        limit = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_files() -> int:
    """How many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextmanager
def no_cycles() -> Iterator[None]:
    """What is made inside is freed without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        yield
        left = gc.collect()
    finally:
        gc.enable()
    assert left == 0, f"{left} objects waited for the garbage collector"


def server_context(issued: Issued, *, alpn: tuple[bytes, ...] = (), version: int | None = None) -> SSL.Context:
    """An origin's context; `alpn` in the order it prefers, `version` the only one if given."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    context.use_certificate(issued.certificate)
    context.use_privatekey(issued.key)
    for extra in issued.chain:
        context.add_extra_chain_cert(extra)
    if alpn:
        context.set_alpn_select_callback(
            lambda _, offered: next((p for p in alpn if p in offered), SSL.NO_OVERLAPPING_PROTOCOLS)
        )
    return context


def client_context(root: bytes | None, *, version: int | None = None, alpn: tuple[bytes, ...] = ()) -> SSL.Context:
    """A client's context that trusts the PEM `root` alone; None: it verifies nothing."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    if root is not None:
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(crypto.load_certificate(crypto.FILETYPE_PEM, root))
        context.set_verify(SSL.VERIFY_PEER)
    if alpn:
        context.set_alpn_protos(list(alpn))
    return context


def hello_of(
    host: str | None = "a.test", *, alpn: tuple[bytes, ...] = (), version: int | None = None
) -> tuple[bytes, ClientHello]:
    """The ClientHello of a real client: its bytes, and what they say."""
    connection = SSL.Connection(client_context(None, version=version, alpn=alpn), None)
    if host is not None:
        connection.set_tlsext_host_name(host.encode())
    connection.set_connect_state()
    with suppress(SSL.WantReadError):
        connection.do_handshake()
    data = connection.bio_read(65536)
    hello = parse(data)
    assert isinstance(hello, ClientHello)
    return data, hello


class Wire:
    """One end of a connection, driven in the test's loop: bytes in plain, or TLS once `handshake` is done."""

    def __init__(self, sock: socket.socket, context: SSL.Context | None = None, *, server: bool = False) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.tls = None if context is None else SSL.Connection(context, sock)
        if self.tls is not None:
            (self.tls.set_accept_state if server else self.tls.set_connect_state)()

    async def _until(self, step: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return step()
            except (SSL.WantReadError, BlockingIOError):
                await _ready(loop.add_reader, loop.remove_reader, self.sock)
            except SSL.WantWriteError:
                await _ready(loop.add_writer, loop.remove_writer, self.sock)

    async def handshake(self) -> None:
        """Raises what pyOpenSSL raises."""
        assert self.tls is not None
        await self._until(self.tls.do_handshake)

    async def recv(self, size: int = 65536) -> bytes:
        """Some bytes; none at an orderly end. `SSL.SysCallError` (-1, …): a bare end of TLS; `ConnectionResetError`."""
        if self.tls is None:
            return await self._until(lambda: self.sock.recv(size))
        try:
            return await self._until(lambda: self.tls.recv(size))
        except SSL.ZeroReturnError:
            return b""

    async def read_all(self) -> bytes:
        parts = []
        while part := await self.recv():
            parts.append(part)
        return b"".join(parts)

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        if self.tls is None:
            await asyncio.get_running_loop().sock_sendall(self.sock, view)
            return
        while view:
            view = view[await self._until(partial(self.tls.send, view[:16384])) :]

    def end(self) -> None:
        """Say that no more comes: close_notify where there is TLS, and FIN."""
        if self.tls is not None:
            self.tls.shutdown()
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        reset(self.sock)


async def _ready(add: Callable[..., Any], remove: Callable[[int], Any], sock: socket.socket) -> None:
    future = asyncio.get_running_loop().create_future()
    add(sock.fileno(), lambda: future.done() or future.set_result(None))
    try:
        await future
    finally:
        remove(sock.fileno())


def run_without_leftovers[T](main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it as `run` does; no open file, and nothing that only the collector of cycles could free, is left."""
    before = open_files()
    with no_cycles():
        result = run(main)
    assert open_files() == before
    return result
