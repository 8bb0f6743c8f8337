"""A process that answers the plugin, one request after another, for as long as the agent lives.

It goes into a pod's network namespace and comes back, and keeps its connection to the API server: a process for each request
would cost more than what it does. What goes wrong in a way that nobody foresaw ends it, and the agent starts another.
"""

import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable

import msgspec

from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.netfilter.features import Features
from weir_sidecar.netsetup import capture
from weir_sidecar.netsetup.nftables import Nft
from weir_sidecar.node import exchange, namespaces, plugin
from weir_sidecar.node.agent import Agent
from weir_sidecar.node.cni import Code, Request, Sandbox
from weir_sidecar.node.counters import Answered, Counters, Phase
from weir_sidecar.node.pods import PodReader, config_to_apply
from weir_sidecar.node.records import Record, Records

_RUN_MICROSECONDS = 2_000_000
"""CPU time without a pause after which a worker with priority is killed: a request takes some thousands."""
_REQUEST_SECONDS = 90
"""After which the process is killed: more than nft and the API server may take."""


class Duty(msgspec.Struct, frozen=True):
    """What all workers work with."""

    listener: socket.socket
    """The plugin's; non-blocking."""
    reader: PodReader
    records: Records
    features: Features
    image: str
    counters: Counters
    say: Callable[[str], None]


class Worker:
    """One of the workers, from 0 on."""

    def __init__(self, duty: Duty, agent: Agent, number: int) -> None:
        self._duty = duty
        self._agent = agent
        self._number = number
        self._home = namespaces.current_network()

    def run(self) -> None:
        """Until the agent ends. Raises what nobody foresaw."""
        listener, lifeline = self._duty.listener, self._agent.lifeline
        self._go_first()
        with select.epoll() as ready:
            ready.register(lifeline, select.EPOLLIN)
            # One of those that are free is woken, not all.
            ready.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            while lifeline.fileno() not in dict(ready.poll()):
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    continue  # another one was faster
                signal.alarm(_REQUEST_SECONDS)
                with connection:
                    self._serve(connection)
                signal.alarm(0)

    def _go_first(self) -> None:
        """Run before all that has no real-time priority (sched(7)).

        A node that starts many pods has no CPU left, and each of them waits for some milliseconds of ours.
        """
        resource.setrlimit(resource.RLIMIT_RTTIME, (_RUN_MICROSECONDS, _RUN_MICROSECONDS))
        try:
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        except PermissionError as error:
            if self._number == 0:
                self._duty.say(
                    f"pods wait longer while this node is busy: no real-time priority: {error}; it takes"
                    " SYS_NICE, and a kernel without RT_GROUP_SCHED or with a budget for this cgroup"
                )

    def _serve(self, connection: socket.socket) -> None:
        visit = Visit(self._duty, self._agent)
        try:
            answered = exchange.serve(connection, visit.answer)
            connection.close()  # to go home takes milliseconds, and the plugin need not wait for it
            if answered is not None:
                self._count(visit, *answered)
        except OSError as error:
            self._duty.say(f"plugin: {error}")
        finally:
            visit.close()
            os.setns(self._home, os.CLONE_NEWNET)

    def _count(self, visit: "Visit", request: Request, error: Code | None) -> None:
        now = time.monotonic()
        began = visit.taken if request.began is None else request.began
        phases = {}
        if visit.captured is not None:
            phases = {
                Phase.QUEUE: visit.taken - began,
                Phase.POD: visit.asked - visit.taken,
                Phase.RULES: now - visit.asked,
            }
            shown = ", ".join(f"{phase} {seconds * 1000:.0f}" for phase, seconds in phases.items())
            name = f"{visit.captured.namespace}/{visit.captured.name}"
            self._duty.say(f"captured pod {name} in {(now - began) * 1000:.0f} ms: {shown}")
        self._duty.counters.count(self._number, Answered(request.command, error, now - began, phases))


class Visit:
    """One request: what was done for it, when, and what is to be closed."""

    def __init__(self, duty: Duty, agent: Agent) -> None:
        self._duty = duty
        self._agent = agent
        self._nft: Nft | None = None
        self.taken = self.asked = time.monotonic()
        self.captured: Record | None = None

    def answer(self, request: Request) -> bytes:
        """See `plugin.answer`."""
        return plugin.answer(request, self._duty.records, self.edge())

    def edge(self) -> plugin.Edge:
        """What the plugin's requests are answered with."""
        features = self._duty.features
        return plugin.Edge(
            config_of=self._config_of,
            enter=_enter,
            apply=lambda config: capture.apply(config, features, self._load),
            check=lambda config: capture.check(config, features),
            listen=self._listen,
            forget=self._agent.forget,
        )

    def close(self) -> None:
        """Let go of what was opened."""
        if self._nft is not None:
            self._nft.close()

    def _config_of(self, sandbox: Sandbox) -> SidecarConfig | None:
        try:
            body = self._duty.reader.read(sandbox)
        finally:
            self.asked = time.monotonic()
        return config_to_apply(body, sandbox, self._duty.image)

    def _load(self, text: str) -> None:
        """It is closed later: the plugin need not wait for that."""
        self.close()
        self._nft = Nft()
        self._nft.run(text, capture.LOAD_ADVICE)

    def _listen(self, record: Record, *, again: bool) -> None:
        self._agent.listen_for(record.container_id, again=again)
        self.captured = record


def _enter(path: str) -> None:
    netns = namespaces.open_netns(path)
    try:
        namespaces.enter_network(netns)
    finally:
        os.close(netns)  # the runtime could not unmount it
