"""The admin endpoint: health, metrics, config and trust cache to look at, and a control socket that may change things.

Three doors with one set of routes. TCP on loopback is open to every process of the pod, the application too, so it can
only be read, and only under a loopback name (a web page that rebinds its DNS name gets nothing). The Unix socket is
open to root and to the proxy's own UID. The probe's port is open to the network, and tells health and metrics alone. One
request a connection; docs/metrics.md and `weir flows` say what it is for.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Annotated

import msgspec

from weir_sidecar.contract.trust import Word
from weir_sidecar.core.trust_change import TrustChange
from weir_sidecar.edge.listeners import has_ipv6
from weir_sidecar.edge.records import RING, RecordSink
from weir_sidecar.wire.admin_request import AdminRequest, BadRequest, Method, NeedMore, parse

CONTROL_SOCKET = "control.sock"
TIMEOUT = 5.0
"""Seconds for a request and its answer; following records has no end."""
MAX_CONNECTIONS = 32
"""At once, at each door; a door that is full does not fill the other."""
FOLLOWER_BACKLOG = 4 << 20
"""Bytes that may wait for somebody who follows; what does not fit is lost to them, and counted."""

_LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))
_UCRED = struct.Struct("=iII")
_REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_WORDS = {f"/trust/{word}": word for word in Word}
_JSON = "application/json"
_JSON_LINES = "application/x-ndjson"
_PLAIN = "text/plain; charset=utf-8"
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class DoorKind(Enum):
    """Who may come in: any process of the pod, the proxy's own people, or the network."""

    POD = auto()
    CONTROL = auto()
    PROBE = auto()


_PROBE_PAGES = ("/healthz", "/readyz", "/metrics")
"""What anybody may see: no name and no address is in it."""


class AdminRoutes(msgspec.Struct, frozen=True):
    """What the endpoint shows and does; called anew for each request.

    `config` gives JSON, `trust` a dump of the trust cache. `change` applies a person's word and says
    why it could not be done, or None.
    """

    ready: Callable[[], bool]
    metrics: Callable[[], bytes]
    config: Callable[[], bytes]
    trust: Callable[[], bytes]
    change: Callable[[TrustChange], str | None]
    captured: Callable[[], bool] = lambda: True


class _Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /trust/…: the host, and the app as far as it is known."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    uid: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] | None = None
    ja4: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class Response(msgspec.Struct, frozen=True):
    """An answer; with `follow`, records go on after it until the client ends."""

    status: int
    content_type: str
    body: bytes
    follow: bool = False

    def encode(self) -> bytes:
        """The bytes of the answer. One that goes on has no length: it ends with the connection."""
        length = "" if self.follow else f"Content-Length: {len(self.body)}\r\n"
        head = (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\nContent-Type: {self.content_type}\r\n{length}"
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + self.body


class ControlSocketError(Exception):
    """The control socket could not be made; the text says why."""


def open_control_socket(directory: int) -> socket.socket:
    """Make the control socket in an open directory, after the drop, so that it belongs to the proxy. Mode 0600.

    A socket that a killed sidecar left is replaced; one that is served is `ControlSocketError`. Through the directory's
    descriptor, because a socket's path has at most 107 bytes (unix(7)).
    """
    path = f"/proc/self/fd/{directory}/{CONTROL_SOCKET}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            os.unlink(CONTROL_SOCKET, dir_fd=directory)
        else:
            raise ControlSocketError(f"another sidecar serves {CONTROL_SOCKET} in this state directory; stop it first")
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        control.bind(path)
    except OSError:
        control.close()
        raise
    finally:
        os.umask(mask)
    control.listen(MAX_CONNECTIONS)
    return control


def open_admin_socket(port: int) -> socket.socket:
    """Listen on 127.0.0.1, TCP `port`. Raises OSError."""
    admin = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        admin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        admin.bind(("127.0.0.1", port))
        admin.listen(MAX_CONNECTIONS)
    except OSError:
        admin.close()
        raise
    return admin


def open_probe_sockets(port: int) -> tuple[socket.socket, ...]:
    """Listen on every address of the pod, TCP `port`, a socket for each family the kernel has. Raises OSError."""
    opened: list[socket.socket] = []
    try:
        for family in (socket.AF_INET, socket.AF_INET6) if has_ipv6() else (socket.AF_INET,):
            probe = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            opened.append(probe)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            probe.listen(MAX_CONNECTIONS)
    except OSError:
        for probe in opened:
            probe.close()
        raise
    return tuple(opened)


class Admin:
    """Serves the routes at the doors it is given. `uids` may use the control socket."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, routes: AdminRoutes, records: RecordSink, uids: Iterable[int]
    ) -> None:
        self._loop = loop
        self._routes = routes
        self._records = records
        self._uids = frozenset(uids)
        self._doors: list[_Door] = []

    def serve(self, listener: socket.socket, kind: DoorKind) -> None:
        """Serve at a listener, and own it."""
        door = _Door(listener, kind)
        self._doors.append(door)
        self._loop.add_reader(listener.fileno(), self._accept, door)

    def close(self) -> None:
        """Stop serving; connections are cut."""
        for door in self._doors:
            self._loop.remove_reader(door.listener.fileno())
            door.listener.close()
            for task in door.tasks:
                task.cancel()
        self._doors.clear()

    def _accept(self, door: "_Door") -> None:
        try:
            connection, _ = door.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            # No descriptor left: the flows need them more. Look again when some may have ended.
            self._loop.remove_reader(door.listener.fileno())
            self._loop.call_later(1.0, self._reopen, door)
            return
        connection.setblocking(False)
        if len(door.tasks) >= MAX_CONNECTIONS:
            if door.kind is not DoorKind.PROBE:
                _turn_away(connection)
                return
            # Strangers who say nothing must not keep the kubelet out, who asks at once: the oldest goes.
            oldest = next(iter(door.tasks))
            del door.tasks[oldest]
            oldest.cancel()
        task = self._loop.create_task(self._converse(door, connection))
        door.tasks[task] = None
        task.add_done_callback(lambda done: door.tasks.pop(done, None))

    def _reopen(self, door: "_Door") -> None:
        if door in self._doors:
            self._loop.add_reader(door.listener.fileno(), self._accept, door)

    async def _converse(self, door: "_Door", connection: socket.socket) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                response = self._forbidden(door, connection) or await self._respond(door, connection)
                if not response.follow:
                    await self._finish(connection, response)
            if response.follow:
                await self._follow(connection, response)
        except (TimeoutError, OSError):
            pass  # the client is gone, or too slow: there is nobody to tell
        finally:
            connection.close()

    def _forbidden(self, door: "_Door", connection: socket.socket) -> Response | None:
        if door.kind is not DoorKind.CONTROL:
            return None
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        uid = _UCRED.unpack(credentials)[1]
        if uid in self._uids:
            return None
        return error(403, f"uid {uid} may not use the control socket; {', '.join(map(str, sorted(self._uids)))} may")

    async def _respond(self, door: "_Door", connection: socket.socket) -> Response:
        data = b""
        try:
            while True:
                chunk = await self._loop.sock_recv(connection, 65536)
                data += chunk
                request = parse(data)
                if not isinstance(request, NeedMore):
                    return answer(request, self._routes, self._records, door.kind)
                if not chunk:
                    return error(400, "the request ends too early")
        except BadRequest as problem:
            return error(problem.status, str(problem))

    async def _finish(self, connection: socket.socket, response: Response) -> None:
        await self._loop.sock_sendall(connection, response.encode())
        connection.shutdown(socket.SHUT_WR)
        # Closing with bytes unread would reset the connection, and the client might not see the answer.
        while await self._loop.sock_recv(connection, 65536):
            pass

    async def _follow(self, connection: socket.socket, response: Response) -> None:
        # No turn of the loop has passed since the ring was read for `response`: no record is missed or told twice.
        follower = _Follower(response.encode())
        end = self._records.follow(follower.take)
        sending = self._loop.create_task(self._send(connection, follower))
        try:
            await self._loop.sock_recv(connection, 1)  # has nothing more to say: this is its end
        finally:
            end()
            sending.cancel()
            await asyncio.wait((sending,))

    async def _send(self, connection: socket.socket, follower: "_Follower") -> None:
        while True:
            await follower.some.wait()
            try:
                await self._loop.sock_sendall(connection, follower.give())
            except OSError:
                return  # the client is gone; the one who waits for its end sees that too


def answer(request: AdminRequest, routes: AdminRoutes, records: RecordSink, kind: DoorKind) -> Response:
    """The answer to a request that came through a door of that kind."""
    control = kind is DoorKind.CONTROL
    if kind is DoorKind.POD and request.host not in _LOOPBACK_NAMES:
        return error(403, f"Host is {request.host or 'missing'}; it must be localhost, 127.0.0.1 or [::1]")
    if request.method is Method.POST:
        if not control:
            return error(405, "this endpoint can only be read; changes go through the control socket")
        return _change(request, routes)
    if control and request.path == "/flows":
        return _flows(request, records)
    pages = _pages(routes, kind)
    page = pages.get(request.path)
    if page is None:
        known = ", ".join((*pages, "/flows") if control else pages)
        return error(404, f"there is no {request.path} here; there are {known}")
    return page()


def _pages(routes: AdminRoutes, kind: DoorKind) -> dict[str, Callable[[], Response]]:
    pages: dict[str, Callable[[], Response]] = {
        "/healthz": lambda: Response(200, _PLAIN, b"ok\n"),
        "/readyz": lambda: _readiness(routes),
        "/metrics": lambda: Response(200, _EXPOSITION, routes.metrics()),
        "/config": lambda: Response(200, _JSON, routes.config()),
        "/trust": lambda: Response(200, _JSON, routes.trust()),
    }
    return {path: pages[path] for path in _PROBE_PAGES} if kind is DoorKind.PROBE else pages


def _readiness(routes: AdminRoutes) -> Response:
    if not routes.ready():
        return error(503, "not ready")
    # Such a pod is to run all the same: its owner said Open.
    return Response(200, _PLAIN, b"ok\n" if routes.captured() else b"ok, but not captured: this pod has no rules\n")


def _turn_away(connection: socket.socket) -> None:
    """Answer that the door is full, as far as that goes without waiting."""
    with connection:
        try:
            connection.send(error(503, f"{MAX_CONNECTIONS} connections are open already").encode())
        except OSError:
            return


def error(status: int, text: str) -> Response:
    """An answer that says what is wrong."""
    return Response(status, _JSON, msgspec.json.encode({"error": text}))


def _flows(request: AdminRequest, records: RecordSink) -> Response:
    last = request.query.get("last", str(RING))
    if not (last.isascii() and last.isdigit() and len(last) <= 9):
        return error(400, f"last is {last!r}; it must be a number of records")
    return Response(200, _JSON_LINES, b"".join(records.last(int(last))), follow=request.query.get("follow") == "1")


def _change(request: AdminRequest, routes: AdminRoutes) -> Response:
    word = _WORDS.get(request.path)
    if word is None:
        return error(404, f"POST to {', '.join(_WORDS)}, not to {request.path}")
    try:
        about = msgspec.json.decode(request.body, type=_Subject)
    except msgspec.MsgspecError as problem:
        return error(400, f'the body must be JSON like {{"host": …, "uid": …, "ja4": …}}: {problem}')
    refused = routes.change(TrustChange(word, about.host, about.uid, about.ja4))
    return Response(200, _JSON, b"{}") if refused is None else error(409, refused)


class _Door:
    """A listener and the connections that came through it."""

    def __init__(self, listener: socket.socket, kind: DoorKind) -> None:
        self.listener = listener
        self.kind = kind
        self.tasks: dict[asyncio.Task[None], None] = {}  # the oldest first


class _Follower:
    """Bytes on their way to somebody who follows, `first` before all; bounded."""

    def __init__(self, first: bytes) -> None:
        self.some = asyncio.Event()
        self._waiting = bytearray()
        self.take([first])

    def take(self, lines: list[bytes]) -> int:
        self.some.set()
        for index, line in enumerate(lines):
            if len(self._waiting) + len(line) > FOLLOWER_BACKLOG:
                return len(lines) - index
            self._waiting += line
        return 0

    def give(self) -> bytes:
        self.some.clear()
        batch = bytes(self._waiting)
        self._waiting.clear()
        return batch
