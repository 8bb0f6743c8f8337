"""What the kubelet and Prometheus ask of the agent: whether it lives, whether it is ready, and what it has counted.

Its answers are from trying: the plugin's socket is asked as the plugin asks it. In a process of its own, which has given up
every capability before the first request comes: this is the one port of the node that the agent opens.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import msgspec

from weir_sidecar.edge import privileges
from weir_sidecar.node import exchange
from weir_sidecar.node.agent import Agent
from weir_sidecar.node.counters import Counters

_STALE_SECONDS = 20.0
"""Without a turn of its loop the agent hangs: it turns each second."""
_CLIENT_SECONDS = 5.0
_ANSWER_SECONDS = 3.0
_STATUS = (b"CNI_COMMAND=STATUS\0", b'{"cniVersion":"1.1.0","name":"probe"}')


class Probe(msgspec.Struct, frozen=True):
    """Answers. `plugin` is the path of the plugin's socket; `now` is the monotonic clock."""

    counters: Counters
    plugin: str
    now: Callable[[], float]

    def healthz(self) -> str:
        """What is wrong with the agent's own process; empty: nothing. A slow API server is not: a restart cures nothing."""
        age = self.now() - self.counters.turned
        if age > _STALE_SECONDS:
            return f"the agent's loop has not turned for {age:.0f} s"
        try:
            self._connect().close()
        except OSError as error:
            return f"{self.plugin}: {error}"
        return ""

    def readyz(self) -> str:
        """Why the plugin would get no answer now; empty: it would."""
        try:
            with self._connect() as connection:
                status = exchange.ask(connection, *_STATUS)
        except OSError as error:
            return f"{self.plugin}: {error}"
        return "" if status == 0 else f"{self.plugin}: STATUS was answered {status}"

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(self.plugin)
        except OSError:
            connection.close()
            raise
        return connection


def listen(port: int) -> socket.socket:
    """On all addresses of the node. Raises OSError."""
    dual = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual, backlog=64
        )
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; cni.healthPort says which port of the node to take") from error


def serve(listener: socket.socket, probe: Probe, agent: Agent) -> None:
    """Until the agent ends."""
    privileges.drop(os.getuid(), os.getgid(), keep=())
    with _Server(listener, probe) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with suppress(ConnectionError):
            agent.lifeline.recv(1)
        server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, probe: Probe) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.probe = probe


class _Handler(BaseHTTPRequestHandler):
    timeout = _CLIENT_SECONDS
    server_version = "weir"
    sys_version = ""

    def do_GET(self) -> None:
        probe = cast("_Server", self.server).probe
        match self.path:
            case "/metrics":
                self._answer(HTTPStatus.OK, probe.counters.render(), "text/plain; version=0.0.4")
            case "/healthz" | "/readyz":
                wrong = probe.healthz() if self.path == "/healthz" else probe.readyz()
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK, f"{wrong or 'ok'}\n".encode())
            case _:
                self._answer(HTTPStatus.NOT_FOUND, b"there are /healthz, /readyz and /metrics\n")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Whoever asks reads the answer."""
