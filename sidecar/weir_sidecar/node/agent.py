"""The agent's loop: it accepts, forks, and reaps. It reads nothing that anybody sent but its own children's notes.

One thread and no event loop that a child could disturb. Children are bounded in number and in time; each pod has one at most
for its sidecar, so that none can keep the others waiting.
"""

import errno
import os
import selectors
import signal
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress

import msgspec

from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.node import handing, namespaces
from weir_sidecar.node.records import Records

_CHILD_SECONDS = 90
"""After which a child is killed: more than nft and the API server may take."""
_BACKLOG = 1024
_LOOK_SECONDS = 1.0
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
    """A child that runs; `pod` is whose, None: the plugin's."""

    pid: int
    descriptor: int
    pod: str | None


class Tasks(msgspec.Struct, frozen=True):
    """What the agent does besides."""

    plugin: "Callable[[socket.socket, Agent], None]"
    """Answers the plugin, in a child."""
    look: Callable[[], None]
    """Called each second at least, and whenever something happens."""
    say: Callable[[str], None]


class Agent:
    """Serves the plugin on `listener`, `at_once` requests at a time, and the sidecars of the pods in `records`."""

    def __init__(self, listener: socket.socket, records: Records, tasks: Tasks, at_once: int) -> None:
        self._listener = listener
        self._records = records
        self._tasks = tasks
        self._at_once = at_once
        self._selector = selectors.DefaultSelector()
        self._inbox, self._outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._pods: dict[str, _Pod] = {}
        self._children: dict[int, _Child] = {}
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
            self._fork(None, lambda one=container_id: self._resume(one))  # type: ignore[misc]
        self._selector.register(self._listener, selectors.EVENT_READ, self._asked)
        while self._running:
            for key, _ in self._selector.select(_LOOK_SECONDS):
                key.data()
            self._tasks.look()

    def _stop(self, *_: object) -> None:
        self._running = False

    # -- for the plugin's children ----------------------------------------------------------------------------------------

    def listen_for(self, container_id: str) -> None:
        """Open the hand-over socket of a pod, in whose network namespace this child is. Raises OSError."""
        try:
            listener = handing.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and container_id in self._pods:
                return
            raise
        # Not the descriptor that the runtime's path led to: it would keep the runtime from unmounting that.
        netns = namespaces.current_network()
        message = msgspec.json.encode(Note(container_id, listening=True))
        socket.send_fds(self._outbox, [message], [listener.fileno(), netns])

    def forget(self, container_id: str) -> None:
        """That pod ends."""
        self._outbox.send(msgspec.json.encode(Note(container_id, listening=False)))

    # -- children ---------------------------------------------------------------------------------------------------------

    def _fork(self, pod: str | None, work: Callable[[], None]) -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                signal.alarm(_CHILD_SECONDS)
                work()
                status = 0
            except (OSError, CaptureError) as error:
                self._tasks.say(f"{'plugin' if pod is None else pod}: {error}")
            except Exception:  # noqa: BLE001 - nobody is above; whoever asked finds the connection closed
                traceback.print_exc()
            finally:
                os._exit(status)
        child = _Child(pid, os.pidfd_open(pid), pod)
        self._children[pid] = child
        self._selector.register(child.descriptor, selectors.EVENT_READ, lambda: self._ended(child))

    def _ended(self, child: _Child) -> None:
        self._selector.unregister(child.descriptor)
        os.close(child.descriptor)
        os.waitpid(child.pid, 0)
        del self._children[child.pid]
        if child.pod is None:
            self._resume_listening(self._listener, self._asked)
        elif pod := self._pods.get(child.pod):
            self._resume_listening(pod.listener, lambda: self._wanted(pod))

    def _resume_listening(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        with suppress(KeyError):  # it was listened to all the time
            self._selector.unregister(listener)
        self._selector.register(listener, selectors.EVENT_READ, ready)

    # -- the plugin -------------------------------------------------------------------------------------------------------

    def _asked(self) -> None:
        if sum(child.pod is None for child in self._children.values()) >= self._at_once:
            self._selector.unregister(self._listener)  # until a child ends
            return
        connection, _ = self._listener.accept()
        with connection:
            self._fork(None, lambda: self._tasks.plugin(connection, self))

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
        self.listen_for(container_id)

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
            self._fork(pod.container_id, lambda: handing.serve(connection, pod.netns, record.config))


def open_listener(path: str) -> socket.socket:
    """The plugin's socket, for root alone, in place of one that an agent before us left."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    old = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(old)
    listener.listen(_BACKLOG)
    return listener
