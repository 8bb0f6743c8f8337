"""Plays an API server by a script: each request gets the next answer, whatever it asks; after the last, silence."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web

from weir_operator.kube.client import Client
from weir_operator.kube.kubeconfig import Access

type Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class FakeApi:
    """An HTTP server on loopback. `requests` are those that came."""

    def __init__(self, *script: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[web.BaseRequest] = []
        self.answered = asyncio.Event()
        """The script is over, and one more request came."""
        self._script = list(script)
        self._tls = tls
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def client(self, **access: Any) -> Client:
        return Client(Access(self.url, **access))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if self._script:
            return await self._script.pop(0)(request)
        self.answered.set()
        await asyncio.Event().wait()
        raise AssertionError


def configmap(name: str, version: int, namespace: str | None = "a", **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(version)}
    return {"metadata": {key: value for key, value in metadata.items() if value}, "data": data}


def answer(body: Any, status: int = 200) -> Answer:
    async def give(_request: web.BaseRequest) -> web.Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(body=data, status=status, content_type="application/json")

    return give


def listing(version: int, *items: dict[str, Any], more: str = "") -> Answer:
    return answer({"metadata": {"resourceVersion": str(version), "continue": more}, "items": items or None})


def refusal(status: int, reason: str = "", **details: Any) -> Answer:
    return answer(
        {"kind": "Status", "code": status, "reason": reason, "message": "because", "details": details}, status
    )


def event(kind: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"kind": "ConfigMap", "metadata": {"resourceVersion": str(version)}})


def watch(*parts: bytes, cut: bool = False) -> Answer:
    """A watch that says these bytes and ends; or is cut, without the end of its last chunk."""

    async def give(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        if cut:
            assert request.transport
            request.transport.abort()
        return response

    return give


async def silence(_request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError
