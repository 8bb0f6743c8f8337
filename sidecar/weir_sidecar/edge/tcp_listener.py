"""Accepts captured TCP connections and starts each on its way: DNS by its port, all else as a `TCPFlow`."""

import asyncio
from collections.abc import Callable
from socket import IPPROTO_TCP, socket

from weir_sidecar.contract.flow import Decision, Reason
from weir_sidecar.edge.context import EdgeContext, Endpoint
from weir_sidecar.edge.dns_stream import DNSStreams
from weir_sidecar.edge.listeners import original_destination
from weir_sidecar.edge.relay import reset_on_close
from weir_sidecar.edge.syn_hold import Admitted, SynHold
from weir_sidecar.edge.udp_listener import is_local

_BURST = 64
"""Connections accepted in one turn before other flows get theirs."""

_PAUSE = 0.1
"""Seconds without accepting when descriptors or memory have run out: the backlog waits, the loop does not spin."""

_DNS_PORT = 53


class TCPListeners:
    """Serves the listeners of both families. `start_flow` makes the coroutine of one connection's life."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: EdgeContext,
        dns: DNSStreams,
        start_flow: Callable[[socket, Endpoint, Endpoint, Admitted | None], "asyncio._CoroutineLike[None]"],
        hold: SynHold | None,
    ) -> None:
        self._loop = loop
        self._context = context
        self._dns = dns
        self._start_flow = start_flow
        self._hold = hold
        self._listeners: list[socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._most = 0

    @property
    def open_flows(self) -> int:
        """Connections that have not ended."""
        return len(self._tasks)

    def busiest(self) -> int:
        """The most connections there were at a time since this was last asked."""
        most, self._most = self._most, len(self._tasks)
        return most

    def serve(self, listener: socket) -> None:
        """Accept from `listener`, and own it."""
        self._listeners.append(listener)
        self._loop.add_reader(listener.fileno(), self._accept, listener)

    def close(self) -> None:
        """Accept no more: the kernel finds no listener from now on. Connections go on."""
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            self._accept(listener)  # whom the kernel has accepted would be reset
            listener.close()
        self._listeners.clear()

    async def drain(self, seconds: float) -> None:
        """Give connections `seconds` to end, then end them; each still writes its record."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, listener: socket) -> None:
        for _ in range(_BURST):
            try:
                client, peer = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(listener.fileno())
                self._loop.call_later(_PAUSE, self._resume, listener)
                return
            client.setblocking(False)
            self._admit(client, peer[:2])

    def _resume(self, listener: socket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _admit(self, client: socket, peer: Endpoint) -> None:
        config = self._context.config
        try:
            destination = original_destination(client, config)
        except OSError:
            client.close()  # gone before it was looked at
            return
        if destination[1] == config.ports.tcp and destination == client.getsockname()[:2] and self._is_own(destination):
            self._refuse(client, peer, destination, Reason.DIRECT_TO_PROXY)
        elif destination[1] == _DNS_PORT and config.capture.dns.capture:
            self._dns.serve(client, peer, destination)
        elif len(self._tasks) >= config.limits.flows:
            self._refuse(client, peer, destination, Reason.OVERLOADED)
        else:
            admitted = None if self._hold is None else self._hold.take(peer, destination)
            task = self._loop.create_task(self._start_flow(client, peer, destination, admitted))
            self._tasks.add(task)
            self._most = max(self._most, len(self._tasks))
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (defect := task.exception()) is not None:
            # A defect of ours, which its record calls internal. It is told now, not when the collector finds it.
            self._loop.call_exception_handler({"message": "a flow ended with a defect", "exception": defect})

    def _is_own(self, destination: Endpoint) -> bool:
        """Whether the address is this pod's: then the client meant the proxy. Another host may use the same port."""
        return is_local(destination if ":" not in destination[0] else (*destination, 0, 0))

    def _refuse(self, client: socket, peer: Endpoint, destination: Endpoint, reason: Reason) -> None:
        context = self._context
        uid = context.uid_of(peer, destination, IPPROTO_TCP)
        reset_on_close(client)
        client.close()
        context.record_unserved(peer, destination, uid, Decision.DENY, reason)
