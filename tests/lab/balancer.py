"""What a Service does for a Deployment, on loopback: new connections go to replicas that are ready, open ones stay."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

_LAG = 1.0
"""Seconds until a replica that is not ready any more gets no new connections: endpoints change asynchronously."""


class Balancer:
    """Passes connections to its `port` on to backends, each given as a port and whether it is ready."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._backends: dict[int, Callable[[], bool]] = {}
        self._ready: dict[int, float] = {}
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets = [self._listener]

    def __enter__(self) -> Self:
        self._start(self._watch)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def _start(self, work: Callable[..., None], *args: socket.socket) -> None:
        self._threads.append(threading.Thread(target=work, args=args, daemon=True))
        self._threads[-1].start()

    def add(self, port: int, ready: Callable[[], bool]) -> None:
        """Another replica."""
        self._backends[port] = ready

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            for port, ready in list(self._backends.items()):
                with contextlib.suppress(Exception):  # one that has ended is not ready
                    if ready():
                        self._ready[port] = time.monotonic()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            now = time.monotonic()
            ports = [port for port, at in self._ready.items() if now - at < _LAG]
            try:
                server = socket.create_connection(("127.0.0.1", random.choice(ports)), 5)
            except (OSError, IndexError):
                client.close()
                continue
            self._sockets += [client, server]
            self._start(_pass_on, client, server)
            self._start(_pass_on, server, client)


def _pass_on(here: socket.socket, there: socket.socket) -> None:
    with contextlib.suppress(OSError):
        here.settimeout(None)
        while data := here.recv(1 << 16):
            there.sendall(data)
    with contextlib.suppress(OSError):
        there.shutdown(socket.SHUT_WR)
