"""A control plane's end of the config stream, in a thread: says what a test wants said, and keeps what sidecars tell."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec
from aiohttp import web

from lab.pki import Authority, LeafShape
from weir_sidecar.contract.stream import Down

PATIENCE = 15.0


class ControlPlane:
    """Serves on `listener` with a certificate of `authority` for `name`. Attributes may be set at any time."""

    def __init__(self, directory: Path, listener: socket.socket, authority: Authority, name: str = "localhost") -> None:
        self.listener = listener
        self.port: int = listener.getsockname()[1]
        self.refuse: int | None = None
        self.greeting: list[Down | bytes] = []
        """What is sent to each that comes."""
        self.requests: list[tuple[str, str]] = []
        """Path and Authorization of each that came."""
        self.told: list[dict[str, Any]] = []
        self._streams: dict[web.StreamResponse, asyncio.Task[None]] = {}
        self._ending = False
        file = authority.leaf(LeafShape((name,))).write(directory / f"control-plane-{self.port}.pem")
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(file)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,))
        self._thread.start()
        assert started.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        """Cut every stream and close the listener, as a server that is killed. Once is enough."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def send(self, message: Down | bytes) -> None:
        """Send a message, or bytes as they are, to all that are connected."""
        asyncio.run_coroutine_threadsafe(self._send(message), self._loop).result(PATIENCE)

    def cut(self) -> None:
        """Break all connections."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(PATIENCE)

    def end(self) -> None:
        """End all streams, cleanly."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE)

    @property
    def connected(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait for something that must come true."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < deadline, f"in vain; told: {self.told}"
            time.sleep(0.002)
        return found

    def wait_told(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The `count`th message of a kind."""
        found: dict[str, Any] = self.wait(lambda: self.all_told(kind)[count - 1 : count])[0]
        return found

    def all_told(self, kind: str) -> list[dict[str, Any]]:
        """All messages of a kind so far."""
        return [message for message in self.told if message["type"] == kind]

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/v1/namespaces/{namespace}/pods/{name}/stream", self._stream)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(self._runner.setup())
        site = web.SockSite(self._runner, self.listener, ssl_context=self._tls)
        self._loop.run_until_complete(site.start())
        started.set()
        self._loop.run_forever()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, request.headers["Authorization"]))
        if self.refuse is not None:
            return web.json_response({"error": "the test refuses"}, status=self.refuse)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        task = asyncio.current_task()
        assert task
        self._streams[response] = task
        try:
            for message in self.greeting:
                await response.write(_encoded(message))
            rest = b""
            async for data in request.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                self.told += map(msgspec.json.decode, lines)
        except ConnectionError:
            pass  # cut, or gone
        except asyncio.CancelledError:
            if not self._ending:
                raise
        finally:
            del self._streams[response]
        return response

    async def _send(self, message: Down | bytes) -> None:
        for response in list(self._streams):
            await response.write(_encoded(message))

    async def _cut(self) -> None:
        for response in list(self._streams):
            assert response._req
            assert response._req.transport
            response._req.transport.abort()

    async def _end(self) -> None:
        self._ending = True
        tasks = list(self._streams.values())
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._ending = False

    async def _stop(self) -> None:
        await self._cut()
        await self._runner.cleanup()
        # Handshakes that are not over have no transport yet that would be cut.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports close their sockets in the turns of the loop that follow


def _encoded(message: Down | bytes) -> bytes:
    return message if isinstance(message, bytes) else msgspec.json.encode(message) + b"\n"
