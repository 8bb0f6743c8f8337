"""Holds a client's SYN until the upstream has answered: so a refused connection is refused, and not accepted and reset.

A transparent listener's kernel accepts at once, whatever becomes of the upstream. So the rules of capture keep a SYN from
TCP while a listener is there, and give it to this module (`edge.syn_tap`), which connects upstream, and sends the SYN
again with a hop limit that the rules let pass (`wire.syn`); or it answers as the upstream did: with a reset, with
an ICMP error, or with silence. A client whose proxy dies or stalls meanwhile is in no backlog: its kernel sends the SYN
again after a second, and the dead-man's switch lets it go direct.
"""

import asyncio
import errno
import socket

import msgspec

from weir_sidecar.contract.flow import Decision, FlowError, Reason
from weir_sidecar.edge.context import EdgeContext, Endpoint
from weir_sidecar.edge.dial import Dial, DialError, dial_error
from weir_sidecar.edge.icmp import Unreachable
from weir_sidecar.edge.syn_tap import SynTap, waiting
from weir_sidecar.wire.syn import Syn, admitted, reset

_BURST = 64
_SWEEP = 5.0
"""Seconds between looks for clients that have gone away while they were held."""

_ANSWERED = frozenset({errno.ECONNRESET, errno.EPIPE})
"""Errors of an upstream that did accept, and was gone again before we looked."""

_DNS_PORT = 53


class Admitted(msgspec.Struct, frozen=True):
    """A connection whose upstream was connected before it was accepted."""

    dial: Dial
    uid: int | None


class _Held(msgspec.Struct, eq=False):
    """A SYN that waits for its upstream, or, once `dial` is connected, for its client's connection to be accepted.

    Without a `dial` it was answered with a failure: the same SYN, sent again meanwhile, is not another connection.
    """

    syn: Syn
    dial: Dial | None
    uid: int | None
    since: float


class SynHold:
    """Everything that is held, bounded by the config's `limits.flows`: beyond, a SYN is let pass as it is."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: EdgeContext, sockets: SynTap, unreachable: Unreachable
    ) -> None:
        self._loop = loop
        self._context = context
        self._sockets = sockets
        self._unreachable = unreachable
        self._held: dict[tuple[Endpoint, Endpoint], _Held] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        for sock in sockets.raw.values():
            loop.add_reader(sock.fileno(), self._readable, sock)

    def take(self, client: Endpoint, destination: Endpoint) -> Admitted | None:
        """What is known of a connection that was just accepted, if it was held."""
        held = self._held.pop((client, destination), None)
        if held is None or held.dial is None or not held.dial.connected:
            return None
        return Admitted(held.dial, held.uid)

    def close(self) -> None:
        """Hold no more. Clients that are held send their SYN again."""
        for sock in self._sockets.raw.values():
            self._loop.remove_reader(sock.fileno())
        for held in self._held.values():
            self._let_go(held)
        self._held.clear()
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._sockets.close()

    def _readable(self, sock: socket.socket) -> None:
        for syn in waiting(sock, _BURST):
            self._seen(syn)

    def _seen(self, syn: Syn) -> None:
        context = self._context
        held = self._held.get((syn.client, syn.destination))
        if held is not None and held.syn.sequence == syn.sequence:
            if held.dial is not None and held.dial.connected:
                self._admit(syn)  # the first one was lost
            return
        if held is not None:
            # The client gave up, and tries again from the same port: what was held for it must not be taken for the new.
            self._let_go(self._held.pop((syn.client, syn.destination)))
        config = context.config
        is_dns = syn.destination[1] == _DNS_PORT and config.capture.dns.capture
        if is_dns or len(self._held) >= config.limits.flows:
            self._admit(syn)
            return
        uid = context.uid_of(syn.client, syn.destination, socket.IPPROTO_TCP)
        if not context.may_connect(syn.destination, uid):
            self._admit(syn)
            return
        self._dial(syn, uid)

    def _dial(self, syn: Syn, uid: int | None) -> None:
        held = self._held[syn.client, syn.destination] = _Held(syn, None, uid, self._context.now())
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(_SWEEP, self._sweep)
        try:
            held.dial = dial = Dial(syn.destination)
        except DialError as failed:
            self._fail(held, failed.cause)
            return
        if dial.connected:
            self._admit(syn)
        else:
            self._loop.add_writer(dial.sock.fileno(), self._answered, held, dial)

    def _answered(self, held: _Held, dial: Dial) -> None:
        self._loop.remove_writer(dial.sock.fileno())
        try:
            dial.check()
        except DialError as failed:
            dial.sock.close()
            if failed.cause.errno in _ANSWERED:
                # Let in without an upstream: the flow connects anew, and ends as it finds it then.
                del self._held[held.syn.client, held.syn.destination]
                self._admit(held.syn)
                return
            held.dial = None
            self._fail(held, failed.cause)
            return
        self._admit(held.syn)

    def _admit(self, syn: Syn) -> None:
        self._sockets.send(admitted(syn), syn.destination[0])

    def _fail(self, held: _Held, error: OSError) -> None:
        """Answer as the upstream, or the way to it, did. A timeout is answered by the client's own clock."""
        syn = held.syn
        if dial_error(error) is FlowError.OVERLOADED:
            self._held.pop((syn.client, syn.destination), None)  # the client's next SYN finds more room
        if error.errno == errno.ECONNREFUSED:
            self._sockets.send(reset(syn), syn.client[0])
        else:
            self._unreachable.quote(syn.client[0], error.errno or 0, syn.packet)
        self._record(held, dial_error(error))

    def _sweep(self) -> None:
        """Give up what no client waits for any more: it has closed its socket, or its clock has run out."""
        context = self._context
        stale = context.now() - _SWEEP
        for key, held in list(self._held.items()):
            if held.since > stale or context.uid_of(*key, socket.IPPROTO_TCP) is not None:
                continue
            del self._held[key]
            if held.dial is not None:
                self._let_go(held)
                self._record(held, FlowError.UPSTREAM_TIMED_OUT)
        self._sweeping = self._loop.call_later(_SWEEP, self._sweep) if self._held else None

    def _let_go(self, held: _Held) -> None:
        if held.dial is not None:
            self._loop.remove_writer(held.dial.sock.fileno())
            held.dial.sock.close()

    def _record(self, held: _Held, error: FlowError) -> None:
        context, syn = self._context, held.syn
        now = context.now()
        context.record_unserved(
            syn.client,
            syn.destination,
            held.uid,
            Decision.PASSTHROUGH,
            Reason.UPSTREAM_UNAVAILABLE,
            host=context.names.name_of(syn.destination[0], now),
            error=error,
            seconds=now - held.since,
        )
