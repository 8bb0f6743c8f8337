"""The sidecar put together: what is opened with privileges, the drop, and what is served until the end.

Order matters and is the point of this module: everything that needs root (files, listeners) comes before the drop,
everything that must belong to the proxy's user comes after, and the heartbeat starts last, when flows can be served.
"""

import asyncio
import datetime as dt
import gc
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable
from socket import socket

import msgspec
from OpenSSL import crypto

from weir_sidecar import __version__
from weir_sidecar.certs.bundle import SYSTEM_BUNDLES, system_bundles, system_roots
from weir_sidecar.certs.leaf import LeafMinter
from weir_sidecar.contract import config as contract
from weir_sidecar.contract.config import CaptureMode, ConfigError, SidecarConfig
from weir_sidecar.core.names import LearnedNames
from weir_sidecar.core.policy import Policy
from weir_sidecar.core.trust_change import TrustChange
from weir_sidecar.edge import authority_files, clocks, privileges, resolver, trust_file
from weir_sidecar.edge.admin import CONTROL_SOCKET, Admin, AdminRoutes, open_admin_socket, open_control_socket
from weir_sidecar.edge.context import EdgeContext, Endpoint
from weir_sidecar.edge.dns_forwarder import DNSForwarder
from weir_sidecar.edge.dns_stream import DNSStreams
from weir_sidecar.edge.heartbeat import Heartbeat
from weir_sidecar.edge.icmp import Unreachable
from weir_sidecar.edge.interception import Interceptor
from weir_sidecar.edge.listeners import Listeners, open_listeners
from weir_sidecar.edge.metrics import Metrics
from weir_sidecar.edge.records import RecordSink, open_record_file
from weir_sidecar.edge.reply_sockets import ListenerReplies, ReplySockets
from weir_sidecar.edge.sockdiag import SockDiag
from weir_sidecar.edge.syn_hold import Admitted, SynHold, SynTap
from weir_sidecar.edge.tcp_flow import TCPFlow
from weir_sidecar.edge.tcp_listener import TCPListeners
from weir_sidecar.edge.tidy import Tidy, malloc_trim
from weir_sidecar.edge.tls_client import ClientTLS
from weir_sidecar.edge.tls_upstream import UpstreamTLS
from weir_sidecar.edge.trust_gate import TrustGate
from weir_sidecar.edge.udp_listener import UDPDispatch, UDPListener
from weir_sidecar.edge.udp_relay import UDPRelay

CONFIG = "config.json"
_DRAIN_SECONDS = 1.0
"""How long flows may take to end when the sidecar is told to stop. In failureMode Closed nothing new passes meanwhile."""


class Options(msgspec.Struct, frozen=True):
    """Where the sidecar finds and leaves things; see `__main__`."""

    run_dir: str
    state_dir: str
    record: str | None
    ready_fd: int | None


class _Opened(msgspec.Struct, frozen=True):
    """What was opened with privileges."""

    config: SidecarConfig
    run_dir: int
    state_dir: int
    record: int | None
    tap: SynTap | None
    listeners: Listeners
    resolver: Endpoint | None
    """Mode Redirect: whom every DNS query is taken to be for."""
    system_roots: bytes
    trim: Callable[[], None]


def say(text: str) -> None:
    """Tell the operator, on standard error."""
    print(f"weir-sidecar: {text}", file=sys.stderr, flush=True)  # noqa: T201  (this is the process's log)


def _open(options: Options) -> _Opened:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run_dir = os.open(options.run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    config = _read_config(run_dir)
    return _Opened(
        config=config,
        run_dir=run_dir,
        state_dir=os.open(options.state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC),
        record=None if options.record is None else open_record_file(options.record),
        # Before the listeners: from the moment they are there, the rules hold every SYN.
        tap=SynTap.open(config.marks) if _connects_first(config) else None,
        listeners=open_listeners(config),
        resolver=_resolver(config),
        system_roots=system_roots(system_bundles(SYSTEM_BUNDLES)),
        trim=malloc_trim(),
    )


def _connects_first(config: SidecarConfig) -> bool:
    return config.capture.mode is CaptureMode.TPROXY and config.capture.connect_first


def _resolver(config: SidecarConfig) -> Endpoint | None:
    if config.capture.mode is CaptureMode.TPROXY or not config.capture.dns.capture:
        return None
    server = config.capture.dns.server
    if server is None:
        with open(resolver.RESOLV_CONF, encoding="utf-8", errors="replace") as file:  # noqa: PTH123  (see pyproject)
            servers = resolver.nameservers(file.read())
        if not servers:
            raise ConfigError(
                f"mode Redirect needs a resolver: {resolver.RESOLV_CONF} has none; set capture.dns.server"
            )
        server = str(servers[0])
    return server, 53


def _read_config(run_dir: int) -> SidecarConfig:
    with os.fdopen(os.open(CONFIG, os.O_RDONLY | os.O_CLOEXEC, dir_fd=run_dir), "rb") as file:
        return contract.decode(file.read())


def _upstream_tls(config: SidecarConfig, roots: bytes) -> UpstreamTLS:
    upstream = config.trust.upstream
    extra = tuple(pem.encode() for pem in upstream.roots_pem)
    return UpstreamTLS((*extra, roots) if upstream.system_roots and roots else extra, upstream.min_tls_version)


class Sidecar:
    """One running sidecar. Made after the drop, inside the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, opened: _Opened) -> None:
        config = opened.config
        policy = Policy(config)
        self._loop = loop
        self._opened = opened
        self._serving = False
        self._stopped: asyncio.Future[None] = loop.create_future()
        self._diag = SockDiag()
        self._heartbeat = Heartbeat(loop, config)
        authority = authority_files.load_or_create(opened.run_dir, clocks.utc())
        loaded = trust_file.load(
            opened.state_dir,
            config.trust.fail_open,
            workload=config.workload,
            authority=authority.fingerprint(),
            canary_wait=config.limits.canary_wait,
        )
        if loaded.problem is not None:
            say(f"the trust cache could not be read and starts empty: {loaded.problem}")
        self._cache = loaded.cache
        self._saver = trust_file.Saver(opened.state_dir, self._cache, loop.call_later, clocks.epoch)
        self._trust = TrustGate(loop, self._cache, clocks.epoch, self._saver.notice)
        self._metrics = Metrics(__version__, self._trust_states, lambda: self._heartbeat.missed)
        self._metrics.config_generation = config.generation
        self._records = RecordSink(loop, self._metrics, say, opened.record)
        self._context = EdgeContext(
            config=config,
            decide=policy.decide,
            names=LearnedNames(),
            record=self._records,
            now=clocks.now,
            wall=clocks.WallClock(),
            new_id=clocks.Ids(),
            uid_of=self._diag.uid_of,
        )
        self._interceptor = Interceptor(
            upstream=_upstream_tls(config, opened.system_roots),
            client=ClientTLS(LeafMinter(authority, dt.timedelta(seconds=config.trust.leaf_lifetime))),
            on_invalid=config.trust.upstream.on_invalid_certificate,
            handshake_timeout=config.limits.handshake_timeout,
            now=clocks.utc,
            clock=clocks.now,
        )
        self._open_edge()

    def _open_edge(self) -> None:
        loop, context = self._loop, self._context
        transparent = context.config.capture.mode is CaptureMode.TPROXY
        self._replies = ReplySockets() if transparent else ListenerReplies(self._opened.listeners.udp)
        # Without TPROXY no capability is needed, and none is assumed.
        unreachable = Unreachable.open() if transparent else Unreachable({})
        self._streams = DNSStreams(loop, context)
        self._dns = DNSForwarder(loop, context, self._replies, unreachable)
        self._relay = UDPRelay(loop, context, self._replies, unreachable)
        tap = self._opened.tap
        self._hold = None if tap is None else SynHold(loop, context, tap, unreachable)
        self._tcp = TCPListeners(loop, context, self._streams, self._start_flow, self._hold)
        self._udp: list[UDPListener] = []
        routes = AdminRoutes(
            ready=lambda: self._serving,
            metrics=self._render_metrics,
            config=lambda: contract.encode(context.config),
            trust=lambda: self._cache.dump(clocks.epoch()),
            change=self._change,
        )
        self._admin = Admin(loop, routes, self._records, uids=(0, os.getuid()))

    def serve(self) -> None:
        """Serve flows from now on, and say so with the heartbeat."""
        dispatch = UDPDispatch(self._context, self._dns, self._relay)
        for listener in self._opened.listeners.tcp:
            self._tcp.serve(listener)
        for listener in self._opened.listeners.udp:
            self._udp.append(UDPListener(self._loop, listener, dispatch, self._opened.resolver))
        self._admin.serve(open_admin_socket(self._context.config.ports.admin))
        self._admin.serve(open_control_socket(self._opened.state_dir))
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        self._tidy = Tidy(self._loop, lambda: self._tcp.open_flows, self._tcp.busiest, self._opened.trim)
        self._heartbeat.start()
        self._serving = True

    async def run(self) -> None:
        """Until a signal says to stop; then end gracefully."""
        await self._stopped
        self._serving = False
        self._heartbeat.stop()
        self._tidy.close()
        self._tcp.close()
        if self._hold is not None:
            self._hold.close()
        for listener in self._udp:
            listener.close()
        await asyncio.gather(self._tcp.drain(_DRAIN_SECONDS), self._dns.drain(_DRAIN_SECONDS))
        self._relay.close()
        self._dns.close()
        self._streams.close()
        self._saver.close()
        self._admin.close()
        os.unlink(CONTROL_SOCKET, dir_fd=self._opened.state_dir)
        self._records.close()

    def _start_flow(
        self, client: socket, peer: Endpoint, destination: Endpoint, admitted: Admitted | None
    ) -> "asyncio._CoroutineLike[None]":
        shared = (self._loop, self._context, self._trust, self._interceptor)
        return TCPFlow(*shared, client, peer, destination, admitted).run()

    def _stop(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)

    def _reload(self) -> None:
        """Read the config again. One that cannot be used changes nothing."""
        try:
            config = _read_config(self._opened.run_dir)
            policy = Policy(config)
            upstream = _upstream_tls(config, self._opened.system_roots)
        except (OSError, ValueError, crypto.Error) as problem:
            say(f"the new config is not used, the last good one stays: {problem}")
            return
        self._context.adopt(config, policy.decide)
        self._interceptor.upstream = upstream
        self._interceptor.handshake_timeout = config.limits.handshake_timeout
        self._interceptor.on_invalid = config.trust.upstream.on_invalid_certificate
        self._cache.settings = config.trust.fail_open
        self._metrics.config_generation = config.generation
        self._trust.wake_all()

    def _change(self, change: TrustChange) -> str | None:
        """A person's word on the trust cache; a text says why it could not be taken."""
        refused = change.apply(self._cache, clocks.epoch())
        self._trust.wake_all()
        return refused

    def _trust_states(self) -> Counter[str]:
        return Counter(entry.state.value for entry in self._cache.entries(clocks.epoch()))

    def _render_metrics(self) -> bytes:
        self._metrics.flows_open = self._tcp.open_flows
        return self._metrics.render()


def run(options: Options) -> int:
    """Open, drop, serve. Returns the exit status."""
    opened = _open(options)
    identity = opened.config.identity
    if os.geteuid() == 0:
        privileges.drop(identity.uid, identity.gid)
    else:
        privileges.drop(os.geteuid(), os.getegid())
    with asyncio.Runner() as runner:
        runner.run(_serve(opened, options.ready_fd))
    return 0


async def _serve(opened: _Opened, ready_fd: int | None) -> None:
    sidecar = Sidecar(asyncio.get_running_loop(), opened)
    sidecar.serve()
    # What start-up leaves behind is kept for ever: the collector need not walk it again.
    gc.collect()
    gc.freeze()
    # Flows leave no cycles behind, so looking for some after every 700 allocations finds nothing.
    gc.set_threshold(20_000)
    if ready_fd is not None:
        os.write(ready_fd, b"1\n")
        os.close(ready_fd)
    await sidecar.run()
