"""The sidecar put together: what is opened with privileges, the drop, and what is served until the end.

Order matters and is the point of this module: everything that needs root (files, listeners) comes before the drop,
everything that must belong to the proxy's user comes after, and the heartbeat starts last, when flows can be served.
"""

import asyncio
import datetime as dt
import gc
import os
import signal
import sys
from collections import Counter
from random import random
from socket import socket

from weir_sidecar import __version__
from weir_sidecar.certs.authority import Authority
from weir_sidecar.certs.leaf import LeafMinter
from weir_sidecar.contract import config as contract
from weir_sidecar.contract.capture import CaptureReason, CaptureRecord
from weir_sidecar.contract.config import CaptureMode, Setup, SidecarConfig
from weir_sidecar.contract.stream import HEARSAY_SECONDS, Exceptions, Health, Hello
from weir_sidecar.core.http_policy import RequestPolicy
from weir_sidecar.core.names import LearnedNames
from weir_sidecar.core.policy import Policy
from weir_sidecar.core.trust_change import TrustChange
from weir_sidecar.edge import authority_files, clocks, privileges, trust_file
from weir_sidecar.edge.admin import (
    CONTROL_SOCKET,
    Admin,
    AdminRoutes,
    DoorKind,
    open_admin_socket,
    open_control_socket,
    open_probe_sockets,
)
from weir_sidecar.edge.capture_watch import CaptureWatch
from weir_sidecar.edge.context import EdgeContext, Endpoint
from weir_sidecar.edge.credentials import Credentials
from weir_sidecar.edge.current_config import CurrentConfig
from weir_sidecar.edge.dns_forwarder import DNSForwarder
from weir_sidecar.edge.dns_stream import DNSStreams
from weir_sidecar.edge.event_loop import EventLoop
from weir_sidecar.edge.heartbeat import Heartbeat
from weir_sidecar.edge.icmp import Unreachable
from weir_sidecar.edge.interception import Interceptor
from weir_sidecar.edge.metrics import Metrics
from weir_sidecar.edge.opening import Opened, Options, open_all
from weir_sidecar.edge.records import RecordSink
from weir_sidecar.edge.reply_sockets import ListenerReplies, ReplySockets
from weir_sidecar.edge.rules_answer import has_rules
from weir_sidecar.edge.sockdiag import SockDiag
from weir_sidecar.edge.sockets import NoSockets
from weir_sidecar.edge.stream_client import PodIdentity, StreamClient, StreamTasks
from weir_sidecar.edge.syn_hold import Admitted, SynHold
from weir_sidecar.edge.tcp_flow import TCPFlow
from weir_sidecar.edge.tcp_listener import TCPListeners
from weir_sidecar.edge.tidy import Tidy
from weir_sidecar.edge.tls_client import ClientTLS
from weir_sidecar.edge.trust_gate import TrustGate
from weir_sidecar.edge.udp_listener import UDPDispatch, UDPListener
from weir_sidecar.edge.udp_relay import UDPRelay
from weir_sidecar.edge.upstream_roots import LOOK_SECONDS, UpstreamRoots

_DRAIN_SECONDS = 1.0
"""How long flows may take to end when the sidecar is told to stop. In failureMode Closed nothing new passes meanwhile."""


def say(text: str) -> None:
    """Tell the operator, on standard error. What nobody takes is lost: a pipe that is full must not stop the loop."""
    try:
        print(f"weir-sidecar: {text}", file=sys.stderr, flush=True)  # noqa: T201  (this is the process's log)
    except OSError:
        return


class Sidecar:
    """One running sidecar. Made after the drop, inside the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, opened: Opened) -> None:
        config = opened.config
        policy = Policy(config)
        self._loop = loop
        self._opened = opened
        self._serving = False
        self.start_anew = False
        """Whether this process is to be replaced by a fresh one: the pod has got rules that this one opened nothing for."""
        self._stopped: asyncio.Future[None] = loop.create_future()
        self._diag = SockDiag()
        self._heartbeat = Heartbeat(loop, config)
        self._authority = authority_files.load_or_create(opened.run_dir, clocks.utc(), config.trust)
        self._trust = self._open_trust(config, self._authority)
        self._metrics = Metrics(__version__, self._trust_states, lambda: self._heartbeat.missed)
        self._metrics.config_generation = config.generation
        self._metrics.config_time = clocks.epoch()
        self._records = RecordSink(loop, self._metrics, say, opened.record)
        self._context = EdgeContext(
            config=config,
            decide=policy.decide,
            requests=RequestPolicy(config),
            names=LearnedNames(),
            record=self._records,
            record_request=self._records.request,
            now=clocks.now,
            wall=clocks.WallClock(),
            new_id=clocks.Ids(),
            uid_of=self._diag.uid_of,
            credentials=Credentials(opened.system_roots),
        )
        self._roots = UpstreamRoots(opened.system_roots, say)
        upstream = self._roots.build(config.trust.upstream)
        assert upstream is not None  # nothing was built before
        self._interceptor = Interceptor(
            upstream=upstream,
            client=self._client_tls(config),
            on_invalid=config.trust.upstream.on_invalid_certificate,
            handshake_timeout=config.limits.handshake_timeout,
            now=clocks.utc,
            clock=clocks.now,
        )
        self._patience = clocks.spread(HEARSAY_SECONDS)
        self._config = CurrentConfig(config, opened.started, opened.run_dir, self._adopt, say)
        self._stream: StreamClient | None = None
        self._open_edge()

    def _open_trust(self, config: SidecarConfig, authority: Authority) -> TrustGate:
        loaded = trust_file.load(
            self._opened.state_dir,
            config.trust.fail_open,
            workload=config.workload,
            authority=authority.fingerprint(),
            canary_wait=config.limits.canary_wait,
        )
        if loaded.problem is not None:
            say(f"the trust cache could not be read and starts empty: {loaded.problem}")
        self._cache = loaded.cache
        self._saver = trust_file.Saver(self._opened.state_dir, self._cache, self._loop.call_later, clocks.epoch)
        return TrustGate(self._loop, self._cache, clocks.epoch, self._trust_changed)

    def _client_tls(self, config: SidecarConfig) -> ClientTLS:
        return ClientTLS(LeafMinter(self._authority, dt.timedelta(seconds=config.trust.leaf_lifetime)))

    def _open_edge(self) -> None:
        loop, context = self._loop, self._context
        sockets = self._opened.sockets
        transparent = context.config.capture.mode is CaptureMode.TPROXY
        self._replies = ReplySockets(sockets.reply) if transparent else ListenerReplies(self._opened.listeners.udp)
        # Without TPROXY no capability is needed, and none is assumed.
        unreachable = sockets.unreachable() if transparent else Unreachable({})
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
            captured=lambda: self._metrics.captured,
        )
        self._admin = Admin(loop, routes, self._records, uids=(0, os.getuid()))

    def serve(self) -> None:
        """Serve flows from now on, and say so with the heartbeat."""
        dispatch = UDPDispatch(self._context, self._dns, self._relay)
        for listener in self._opened.listeners.tcp:
            self._tcp.serve(listener)
        for listener in self._opened.listeners.udp:
            self._udp.append(UDPListener(self._loop, listener, dispatch, self._opened.resolver))
        ports = self._context.config.ports
        self._admin.serve(open_admin_socket(ports.admin), DoorKind.POD)
        self._admin.serve(open_control_socket(self._opened.state_dir), DoorKind.CONTROL)
        for probe in () if ports.probe is None else open_probe_sockets(ports.probe):
            self._admin.serve(probe, DoorKind.PROBE)
        self._loop.add_signal_handler(signal.SIGHUP, self._config.reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        self._tidy = Tidy(self._loop, lambda: self._tcp.open_flows, self._tcp.busiest, self._opened.trim)
        self._roots_timer = self._loop.call_later(LOOK_SECONDS, self._look_at_roots)
        self._heartbeat.start()
        self._watch = self._watch_capture() if self._context.config.setup is Setup.CNI else None
        self._serving = True

    def follow_control_plane(self, pod: PodIdentity) -> None:
        """Open the config stream, as the config says where."""
        tasks = StreamTasks(
            stream=lambda: self._config.config.stream,
            hello=lambda: Hello(
                __version__, self._config.config.revision, self._config.kernel_revision, self._metrics.captured
            ),
            health=self._health,
            trust=lambda: self._cache.entries(clocks.epoch()),
            take=self._config.take,
            hear=self._hear,
        )
        self._stream = StreamClient(self._loop, pod, tasks, self._metrics, random, say)

    async def run(self) -> None:
        """Until a signal says to stop; then end gracefully."""
        await self._stopped
        self._serving = False
        self._heartbeat.stop()
        self._roots_timer.cancel()
        if self._watch is not None:
            self._watch.close()
        if self._stream is not None:
            await self._stream.close()
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

    def _watch_capture(self) -> CaptureWatch:
        captured = not isinstance(self._opened.sockets, NoSockets)
        if not captured:
            self._tell_capture(CaptureReason.PLUGIN_MISSED)
        return CaptureWatch(
            self._loop, lambda: has_rules(self._context.config), self._capture_changed, captured=captured
        )

    def _capture_changed(self, reason: CaptureReason) -> None:
        self._tell_capture(reason)
        if reason is not CaptureReason.REPAIRED:
            say("this pod has lost its rules: its flows go direct")
        elif isinstance(self._opened.sockets, NoSockets):
            say("this pod has rules now: starting anew, to serve its flows")
            self.start_anew = True
            self._stop()
        else:
            say("this pod has its rules again")

    def _tell_capture(self, reason: CaptureReason) -> None:
        self._metrics.captured = reason is CaptureReason.REPAIRED
        self._records.capture(CaptureRecord(self._context.wall(), self._metrics.captured, reason))
        if self._stream is not None:
            self._stream.health_changed()

    def _adopt(self, config: SidecarConfig) -> None:
        """Put a config in force. Raises what is wrong with it, and has changed nothing then."""
        policy, requests = Policy(config), RequestPolicy(config)
        upstream = self._roots.build(config.trust.upstream)
        if config.trust.leaf_lifetime != self._context.config.trust.leaf_lifetime:
            self._interceptor.client = self._client_tls(config)
        self._interceptor.upstream = upstream or self._interceptor.upstream
        self._interceptor.handshake_timeout = config.limits.handshake_timeout
        self._interceptor.on_invalid = config.trust.upstream.on_invalid_certificate
        self._context.adopt(config, policy.decide, requests)
        self._cache.settings = config.trust.fail_open
        self._metrics.config_generation = config.generation
        self._metrics.config_time = clocks.epoch()
        self._trust.wake_all()

    def _look_at_roots(self) -> None:
        """A file of roots that is another one now counts from now on."""
        self._roots_timer = self._loop.call_later(LOOK_SECONDS, self._look_at_roots)
        if self._roots.changed():
            upstream = self._roots.build(self._context.config.trust.upstream)
            self._interceptor.upstream = upstream or self._interceptor.upstream

    def _hear(self, exceptions: Exceptions) -> None:
        """What the control plane says about trust, from now on."""
        self._cache.adopt(exceptions.said, exceptions.learned, clocks.epoch(), self._patience)
        self._trust.wake_all()

    def _trust_changed(self) -> None:
        self._saver.notice()
        if self._stream is not None:
            self._stream.trust_changed()

    def _health(self) -> Health:
        return Health(
            flows_open=self._tcp.open_flows,
            flows=self._metrics.flows_by_decision(),
            records_lost=sum(self._metrics.records_lost.values()),
            heartbeats_missed=self._heartbeat.missed,
            captured=self._metrics.captured,
        )

    def _change(self, change: TrustChange) -> str | None:
        """A person's word on the trust cache; a text says why it could not be taken."""
        refused = change.apply(self._cache, clocks.epoch())
        self._trust.wake_all()
        return refused

    def _trust_states(self) -> Counter[str]:
        entries = (*self._cache.entries(clocks.epoch()), *self._cache.heard())
        return Counter(entry.state.value for entry in entries)

    def _render_metrics(self) -> bytes:
        self._metrics.flows_open = self._tcp.open_flows
        if self._serving and self._opened.tap is not None:
            self._metrics.held_syns_lost = self._opened.tap.lost()
        return self._metrics.render()


def run(options: Options) -> int:
    """Open, drop, serve. Returns the exit status."""
    opened = open_all(options, say)
    identity = opened.config.identity
    if os.geteuid() == 0:
        privileges.drop(identity.uid, identity.gid, options.group)
    else:
        privileges.drop(os.geteuid(), os.getegid(), options.group)
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        start_anew = runner.run(_serve(opened, options))
    if start_anew:
        # In the container's own process, so that nothing counts it as a restart. Descriptors are closed on the way.
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - its own arguments
    return 0


async def _serve(opened: Opened, options: Options) -> bool:
    """Whether to start anew."""
    sidecar = Sidecar(asyncio.get_running_loop(), opened)
    sidecar.serve()
    if options.pod is not None and opened.config.stream is not None:
        sidecar.follow_control_plane(options.pod)
    # What start-up leaves behind is kept for ever: the collector need not walk it again.
    gc.collect()
    gc.freeze()
    # Flows leave no cycles behind, so looking for some after every 700 allocations finds nothing.
    gc.set_threshold(20_000)
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"1\n")
        os.close(options.ready_fd)
    await sidecar.run()
    return sidecar.start_anew
