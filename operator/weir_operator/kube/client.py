"""Requests to the API server: JSON over HTTPS, each with a limit in time, each failure an `ApiError`."""

import os
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from weir_operator.kube.errors import ApiError, Reason, error_of
from weir_operator.kube.kubeconfig import Access, KubeconfigError, find_access

JSON = "application/json"
MAX_LINE = 8 << 20
"""Bytes of one line of a watch. etcd keeps objects of at most 1.5 MiB by default."""

_PAGE = "500"
_TOKEN_SECONDS = 60.0
"""How long a token is used before its file is read again: the kubelet renews it when a fifth of its life is left."""
_REQUEST_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
# A peer that is gone without a word is noticed after 15 seconds and three times 5.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class Patch(StrEnum):
    """How a patch is meant: its content type."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    next_page: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct, frozen=True):
    """A part of a list; its items are JSON, unread."""

    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class Client:
    """Speaks to one API server. Use it as an async context manager, or `close()` it."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._tls = tls_context(access)
        self._token = access.token
        self._token_until = 0.0
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_environment(cls, kubeconfig: str | None = None) -> Self:
        """By this kubeconfig; without one, as the pod that this process is in, else by KUBECONFIG or ~/.kube/config.

        Raises `KubeconfigError`.
        """
        return cls(find_access(os.environ, kubeconfig))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(  # noqa: PLR0913 - what HTTP has
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content_type: str = JSON,
        params: Mapping[str, str] | None = None,
        accept: str = JSON,
        seconds: float = _REQUEST_SECONDS,
    ) -> bytes:
        """The body of the answer. `path` begins with /api; a `body` that is not bytes is sent as JSON.

        Raises `ApiError`; after `seconds` without the whole answer too.
        """
        headers = self._headers(accept)
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        if data is not None:
            headers["Content-Type"] = content_type
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
        try:
            async with self._send(method, path, headers, limits, data=data, params=params) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(method, path, error) from error
        self._check(response, answer)
        return answer

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One object."""
        return _object(await self.request("GET", path, params=params))

    async def list(self, path: str, params: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """All objects of a collection, asked for in pages. Of the API's own kinds they have no apiVersion and kind."""
        try:
            return [_object(item) async for page in self.pages(path, params) for item in page.items or ()]
        except ApiError as error:
            if not error.gone:
                raise
        # It took longer than the server keeps the first page's version: then all of it in one piece.
        page = _decoded(await self.request("GET", path, params=params), Page)
        return [_object(item) for item in page.items or ()]

    async def pages(
        self, path: str, params: Mapping[str, str] | None = None, accept: str = JSON
    ) -> AsyncGenerator[Page]:
        """A collection in pages, all of one version. Raises `ApiError`, `gone` when that version is too old."""
        asked = {**(params or {}), "limit": _PAGE}
        while True:
            answer = await self.request("GET", path, params=asked, accept=accept)
            page = _decoded(answer, Page)
            yield page
            if not page.metadata.next_page:
                return
            asked["continue"] = page.metadata.next_page

    async def create(self, path: str, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object in a collection; what came of it."""
        return _object(await self.request("POST", path, body=obj))

    async def replace(self, path: str, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Put an object in the place of one; with a resourceVersion in it, Conflict if that is not the newest."""
        return _object(await self.request("PUT", path, body=obj))

    async def patch(
        self, path: str, patch: Any, kind: Patch = Patch.MERGE, params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Change an object; what came of it."""
        return _object(await self.request("PATCH", path, body=patch, content_type=kind, params=params))

    async def delete(self, path: str, options: Mapping[str, Any] | None = None) -> None:
        """Remove an object; NotFound is an error as any. `options`: metav1.DeleteOptions."""
        await self.request("DELETE", path, body=options)

    async def lines(
        self, path: str, params: Mapping[str, str], *, silence: float, accept: str = JSON
    ) -> AsyncGenerator[bytes]:
        """The lines of an answer that goes on, a watch, to its end; none is longer than `MAX_LINE`.

        Raises `ApiError`; after `silence` seconds without a byte too.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence)
        try:
            async with self._send("GET", path, self._headers(accept), limits, params=params) as response:
                if response.status != 200:
                    self._check(response, await response.read())
                try:
                    async with aclosing(_lines(response.content)) as lines:
                        async for line in lines:
                            yield line
                finally:
                    if response.connection is not None and response.connection.transport is not None:
                        response.connection.transport.abort()  # left in the middle: no farewell
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable("GET", path, error) from error

    def _send(  # noqa: PLR0913 - as above
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        limits: aiohttp.ClientTimeout,
        *,
        params: Mapping[str, str] | None,
        data: bytes | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None:  # not before: it belongs to the loop that runs now
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls, socket_factory=_socket))
        return self._session.request(
            method,
            self._access.server + path,
            params=params,
            data=data,
            headers=headers,
            timeout=limits,
            server_hostname=self._access.server_name,
            allow_redirects=False,  # a token is for this server only
        )

    def _headers(self, accept: str) -> dict[str, str]:
        headers = {"Accept": accept, "User-Agent": "weir"}
        file, now = self._access.token_file, time.monotonic()
        if file is not None and now >= self._token_until:
            try:
                self._token = file.read_text().strip()
            except OSError as error:
                raise ApiError(0, Reason.UNREACHABLE, f"{file}: cannot be read: {error.strerror}") from error
            self._token_until = now + _TOKEN_SECONDS
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers

    def _check(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        """Raise what an answer that is no success stands for."""
        if response.status == 401:
            self._token_until = 0.0
        if not 200 <= response.status < 300:
            raise error_of(response.status, body)


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
    buffer = b""
    async for chunk in content.iter_any():
        *whole, buffer = (buffer + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(buffer) > MAX_LINE:
            raise ApiError(0, Reason.UNREACHABLE, f"a line of more than {MAX_LINE} bytes")


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


def tls_context(access: Access) -> ssl.SSLContext:
    """How to verify the API server, and to be known to it by a certificate. Raises `KubeconfigError`."""
    cadata = access.authorities.decode("ascii", "replace") if access.authorities else None
    try:
        context = ssl.create_default_context(cadata=cadata)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the CAs of many clusters have no key identifiers
        if access.certificate and access.key:
            _load(context, access.certificate + b"\n" + access.key)
    except ssl.SSLError as error:
        raise KubeconfigError(f"{access.server}: the CA, or the client certificate and its key: {error}") from error
    return context


def _load(context: ssl.SSLContext, chain: bytes) -> None:
    """Give the context our certificate and key, which it takes from a file only: one that is in memory."""
    descriptor = os.memfd_create("client-certificate")
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(chain)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def _unreachable(method: str, path: str, error: Exception) -> ApiError:
    return ApiError(0, Reason.UNREACHABLE, f"{method} {path}: {type(error).__name__}: {error}")


def _decoded[T](answer: bytes | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ApiError(0, Reason.UNREACHABLE, f"the answer cannot be read: {error}") from error


def _object(answer: bytes | msgspec.Raw) -> dict[str, Any]:
    return _decoded(answer, dict[str, Any])
