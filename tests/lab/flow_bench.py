"""A sidecar's TCP side in one process: flows with real sockets on both ends, and no capture, namespace or privilege."""

import asyncio
import datetime as dt
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from OpenSSL import SSL

from lab.edge import INTERCEPT, Surroundings
from lab.loopback import Wire, client_context, pair, server_context
from lab.pki import Authority as Lab
from lab.pki import Issued, LeafShape
from weir_sidecar.certs.authority import Authority
from weir_sidecar.certs.leaf import LeafMinter
from weir_sidecar.contract.config import FailOpen, OnInvalidCertificate, SidecarConfig
from weir_sidecar.contract.flow import FlowRecord
from weir_sidecar.core.trust_cache import TrustCache
from weir_sidecar.core.verdict import FlowFacts, Verdict
from weir_sidecar.edge.interception import Interceptor
from weir_sidecar.edge.tcp_flow import TCPFlow
from weir_sidecar.edge.tls_client import ClientTLS
from weir_sidecar.edge.tls_upstream import UpstreamTLS
from weir_sidecar.edge.trust_gate import TrustGate

HOST = "a.test"
LAB = Lab.root("root of the flow tests")
LEAF = LAB.leaf(LeafShape((HOST,)))
AUTHORITY = Authority.create(dt.datetime.now(dt.UTC))
TRUSTS_WEIR = AUTHORITY.certificate_pem()
TRUSTS_LAB = LAB.issued.pem

type Serve = Callable[[Wire], Awaitable[None]]


async def echo(wire: Wire) -> None:
    """Sends back what comes, and ends as the client does."""
    if wire.tls is not None:
        await wire.handshake()
    while data := await wire.recv():
        await wire.send(data)
    wire.end()


class FlowBench:
    """One origin and flows to it. `serve` is what the origin does with each connection."""

    def __init__(
        self,
        serve: Serve = echo,
        origin: Issued | SSL.Context | None = LEAF,
        *,
        decide: Callable[[FlowFacts], Verdict] = lambda _: INTERCEPT,
        config: SidecarConfig | None = None,
        on_invalid: OnInvalidCertificate = OnInvalidCertificate.REJECT,
        handshake_timeout: float = 10.0,
        fail_open: FailOpen | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.surroundings = Surroundings(config, decide)
        self.surroundings.context.now = loop.time
        self.cache = TrustCache(fail_open or FailOpen(), canary_wait=1.0)
        self.trust = TrustGate(loop, self.cache, lambda: 1000.0 + loop.time(), lambda: None)
        self.interceptor = Interceptor(
            upstream=UpstreamTLS((LAB.issued.pem,)),
            client=ClientTLS(LeafMinter(AUTHORITY, dt.timedelta(days=1))),
            on_invalid=on_invalid,
            handshake_timeout=handshake_timeout,
            now=lambda: dt.datetime.now(dt.UTC),
            clock=loop.time,
        )
        self._loop = loop
        self._serve = serve
        self._origin = server_context(origin) if isinstance(origin, Issued) else origin
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.destination = self._listener.getsockname()
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        loop.add_reader(self._listener.fileno(), self._accept)

    @property
    def records(self) -> list[FlowRecord]:
        return self.surroundings.records

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        self.connections += 1
        self._start(self._served(sock))

    async def _served(self, sock: socket.socket) -> None:
        try:
            await self._serve(Wire(sock, self._origin, server=True))
        except (SSL.Error, OSError):
            pass  # clients and flows leave as they like
        finally:
            sock.close()

    def _start(self, work) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def flow(
        self, client: SSL.Context | None = None, destination: tuple[str, int] | None = None, sni: str | None = HOST
    ) -> tuple[Wire, asyncio.Task[None]]:
        """A client's end of a new connection, and the flow that serves it."""
        near, far = pair()
        far.setblocking(False)
        context = self.surroundings.context
        to = destination or self.destination
        peer = near.getsockname()
        flow = TCPFlow(self._loop, context, self.trust, self.interceptor, far, peer, to)
        wire = Wire(near, client)
        if wire.tls is not None and sni is not None:
            wire.tls.set_tlsext_host_name(sni.encode())
        return wire, self._start(flow.run())

    def serve(self, client: socket.socket, to: tuple[str, int]) -> None:
        """Let a flow serve a connection of a client that the test has not made."""
        context = self.surroundings.context
        flow = TCPFlow(self._loop, context, self.trust, self.interceptor, client, client.getpeername(), to)
        self._start(flow.run())

    async def ended(self) -> None:
        """All flows are over."""
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()


@asynccontextmanager
async def flows(*args, **options) -> AsyncIterator[FlowBench]:
    """A bench that is closed at the end."""
    bench = FlowBench(*args, **options)
    try:
        yield bench
    finally:
        await bench.close()


@asynccontextmanager
async def in_front(bench: FlowBench, to: tuple[str, int]) -> AsyncIterator[int]:
    """A port of this machine whose connections are flows to `to`."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        def accept() -> None:
            client, _ = listener.accept()
            client.setblocking(False)
            bench.serve(client, to)

        loop.add_reader(listener.fileno(), accept)
        try:
            yield listener.getsockname()[1]
        finally:
            loop.remove_reader(listener.fileno())


def weir_client(**options) -> SSL.Context:
    """A client that trusts Weir's CA alone."""
    return client_context(TRUSTS_WEIR, **options)


def lab_client(**options) -> SSL.Context:
    """A client that trusts the origins' root alone, and so distrusts Weir."""
    return client_context(TRUSTS_LAB, **options)
