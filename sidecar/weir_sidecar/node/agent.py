"""The agent's loop: it accepts, forks, and reaps. It reads nothing that anybody sent but its own children's notes.

One thread and no event loop that a child could disturb. What serves others than sidecars runs in children that stay, and are
started anew when they end. For its sidecar each pod has one child at most, so that none can keep the others waiting.
"""

import errno
import os
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.node import handing, namespaces
from weir_sidecar.node.records import Records

_CHILD_SECONDS = 90
"""After which a child is killed, unless it is to stay."""
_BACKLOG = 1024
_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 5.0
"""For what children are at when the agent ends."""
_NOTE_BYTES = 4096


class Note(msgspec.Struct, frozen=True):
    """What a child tells the agent. With `listening` two descriptors come: the listener and the network namespace."""

    container_id: str
    listening: bool


class _Pod(msgspec.Struct, frozen=True):
    """A captured pod, as the agent holds it: descriptors, and nothing that the record does not say."""

    container_id: str
    listener: socket.socket
    netns: int
    uid: int | None
    """The proxy's, where it is the same inside and outside of the pod."""

    def close(self) -> None:
        self.listener.close()
        os.close(self.netns)


class _Child(msgspec.Struct, frozen=True):
    """A child that runs."""

    pid: int
    descriptor: int
    ended: Callable[[], None]


class Tasks(msgspec.Struct, frozen=True):
    """What the agent does besides."""

    services: "tuple[Callable[[Agent], None], ...]"
    """Each runs in a child of its own, until the agent's `lifeline` is readable; it is started anew when it ends."""
    look: Callable[[int], None]
    """Called each second at least, and whenever something happens, with the number of pods."""
    say: Callable[[str], None]


class Agent:
    """Serves the sidecars of the pods in `records`."""

    def __init__(self, records: Records, tasks: Tasks) -> None:
        self._records = records
        self._tasks = tasks
        self._selector = selectors.DefaultSelector()
        self._inbox, self._outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self.lifeline, self._life = socket.socketpair()
        """What services look at: it is readable, at its end, when the agent has ended."""
        self._pods: dict[str, _Pod] = {}
        self._children: dict[int, _Child] = {}
        self._missing = list(tasks.services)
        self._start_at = 0.0
        self._running = True

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        wake, woken = socket.socketpair(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        signal.set_wakeup_fd(woken.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._selector.register(wake, selectors.EVENT_READ, lambda: wake.recv(64))
        self._selector.register(self._inbox, selectors.EVENT_READ, self._hear)
        for container_id in list(self._records.all()):
            self._fork(container_id, partial(self._resume, container_id), _nothing)
        while self._running:
            self._start_services()
            for key, _ in self._selector.select(_LOOK_SECONDS):
                key.data()
            self._tasks.look(len(self._pods))
        self._finish()

    def _stop(self, *_: object) -> None:
        self._running = False

    def _start_services(self) -> None:
        """Those that do not run; once a second, should one not be able to."""
        now = time.monotonic()
        if now < self._start_at:
            return
        self._start_at = now + _LOOK_SECONDS
        missing, self._missing = self._missing, []
        for service in missing:
            self._fork("service", partial(self._serve, service), partial(self._miss, service))

    def _miss(self, service: "Callable[[Agent], None]") -> None:
        self._missing.append(service)

    def _serve(self, service: "Callable[[Agent], None]") -> None:
        """In a child that stays: what it kept of the pods would outlive them."""
        signal.alarm(0)
        for pod in self._pods.values():
            pod.close()
        service(self)

    def _finish(self) -> None:
        """Let children end what they are at."""
        self._life.close()
        deadline = time.monotonic() + _GRACE_SECONDS
        while self._children and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                key.data()
        for child in self._children.values():
            os.kill(child.pid, signal.SIGKILL)

    # -- for services -----------------------------------------------------------------------------------------------------

    def listen_for(self, container_id: str, *, again: bool) -> None:
        """Open the hand-over socket of a pod, in whose network namespace this child is. Raises OSError.

        `again`: the agent may have it.
        """
        try:
            listener = handing.listen()
        except OSError as error:
            if again and error.errno == errno.EADDRINUSE:
                return
            raise
        # Not the descriptor that the runtime's path led to: it would keep the runtime from unmounting that.
        netns = namespaces.current_network()
        message = msgspec.json.encode(Note(container_id, listening=True))
        with listener:
            socket.send_fds(self._outbox, [message], [listener.fileno(), netns])
        os.close(netns)

    def forget(self, container_id: str) -> None:
        """That pod ends."""
        self._outbox.send(msgspec.json.encode(Note(container_id, listening=False)))

    # -- children ---------------------------------------------------------------------------------------------------------

    def _fork(self, name: str, work: Callable[[], None], ended: Callable[[], None]) -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._life.close()
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                signal.alarm(_CHILD_SECONDS)
                work()
                status = 0
            except (OSError, CaptureError) as error:
                self._tasks.say(f"{name}: {error}")
            except Exception:  # noqa: BLE001 - nobody is above; whoever asked finds the connection closed
                traceback.print_exc()
            finally:
                os._exit(status)
        child = _Child(pid, os.pidfd_open(pid), ended)
        self._children[pid] = child
        self._selector.register(child.descriptor, selectors.EVENT_READ, lambda: self._ended(child))

    def _ended(self, child: _Child) -> None:
        self._selector.unregister(child.descriptor)
        os.close(child.descriptor)
        os.waitpid(child.pid, 0)
        del self._children[child.pid]
        child.ended()

    # -- sidecars ---------------------------------------------------------------------------------------------------------

    def _resume(self, container_id: str) -> None:
        """After the agent's own restart: listen again for a pod that was captured before. In a child."""
        record = self._records.read(container_id)
        try:
            netns = namespaces.open_netns(record.netns) if record is not None else None
        except FileNotFoundError:
            netns = None
        if record is None or netns is None:
            self._records.remove(container_id)
            return
        namespaces.enter_network(netns)
        self.listen_for(container_id, again=False)

    def _hear(self) -> None:
        data, descriptors, _, _ = socket.recv_fds(self._inbox, _NOTE_BYTES, 2)
        note = msgspec.json.decode(data, type=Note)
        old = self._pods.pop(note.container_id, None)
        if old is not None:
            with suppress(KeyError):
                self._selector.unregister(old.listener)
            old.close()
        if note.listening:
            listener, netns = descriptors
            self._add(note.container_id, socket.socket(fileno=listener), netns)

    def _add(self, container_id: str, listener: socket.socket, netns: int) -> None:
        record = self._records.read(container_id)
        same_users = record is not None and not namespaces.is_pods_own(netns)
        uid = record.config.identity.uid if record is not None and same_users else None
        pod = self._pods[container_id] = _Pod(container_id, listener, netns, uid)
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._wanted(pod))

    def _wanted(self, pod: _Pod) -> None:
        try:
            connection, _ = pod.listener.accept()
        except OSError:
            return  # it has gone away again
        with connection:
            if pod.uid is not None and handing.peer_uid(connection) != pod.uid:
                return
            record = self._records.read(pod.container_id)
            if record is None:
                return
            self._selector.unregister(pod.listener)  # until this child ends
            self._fork(
                pod.container_id,
                lambda: handing.serve(connection, pod.netns, record, self._records),
                lambda: self._listen_again(pod.container_id),
            )

    def _listen_again(self, container_id: str) -> None:
        pod = self._pods.get(container_id)
        if pod is None:
            return
        with suppress(KeyError):  # it has been added anew meanwhile, and is listened to
            self._selector.unregister(pod.listener)
        self._selector.register(pod.listener, selectors.EVENT_READ, lambda: self._wanted(pod))


def _nothing() -> None:
    """Nobody waits for it."""


def open_listener(path: str) -> socket.socket:
    """The plugin's socket, for root alone, in place of one that an agent before us left."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    old = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(old)
    listener.listen(_BACKLOG)
    return listener
