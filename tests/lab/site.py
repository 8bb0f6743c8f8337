"""What the lab's web origins answer, whatever the HTTP version: the same request gives the same bytes."""

import gzip
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from lab.stream import blocks, digest

HELLO = b"hello from the lab, \xc3\xa4\xc3\xb6\xc3\xbc\n" * 20


@dataclass(frozen=True)
class Request:
    """One request; the body comes in pieces."""

    method: str
    path: str
    headers: dict[str, str]
    body: Iterable[bytes]
    facts: dict[str, str | None]
    """What the connection is: TLS version and ALPN as the origin sees them."""
    trailers: dict[str, str] = field(default_factory=dict)
    """What followed the body; there when it has been read."""


@dataclass(frozen=True)
class Response:
    """One response; `length` None is a body whose end only the framing tells."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: Iterable[bytes | memoryview]
    length: int | None = None
    trailers: tuple[tuple[str, str], ...] = ()
    hints: tuple[tuple[str, str], ...] = ()
    """Of a 103 before it (RFC 8297)."""


def _whole(status: int, body: bytes, kind: str = "text/plain") -> Response:
    return Response(status, (("content-type", kind), ("x-lab", "origin")), (body,), len(body))


def _slow() -> Iterator[bytes]:
    for number in range(5):
        time.sleep(0.2)
        yield b"part %d\n" % number


class Site:
    """Answers from a directory of static files and git repositories, and a few paths that make their answer."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def answer(self, request: Request) -> Response:
        path, _, query = request.path.partition("?")
        first, _, rest = path.lstrip("/").partition("/")
        make = _PAGES.get(first)
        if make:
            return make(request, rest)
        return self._git(request, "/" + rest, query) if first == "git" else self._file(path)

    def _file(self, path: str) -> Response:
        file = (self._root / path.lstrip("/")).resolve()
        if file.is_dir():
            file /= "index.html"
        if not file.is_relative_to(self._root.resolve()) or not file.is_file():
            return _whole(404, b"no such page\n")
        kind = "text/html" if file.suffix == ".html" else "application/octet-stream"
        return _whole(200, file.read_bytes(), kind)

    def _git(self, request: Request, path: str, query: str) -> Response:
        body = b"".join(request.body)
        environment = {
            "GIT_PROJECT_ROOT": str(self._root / "git"),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
            "PATH": "/usr/bin:/bin",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
        status = next((int(v.split()[0]) for k, v in fields if k == "Status"), 200)
        headers = tuple((k.lower(), v) for k, v in fields if k != "Status")
        return Response(status, headers, (content,), len(content))


def _grpc(request: Request) -> Response:
    """Echo of one unary message: the same five-byte prefix and bytes back (gRPC over HTTP/2, "Requests")."""
    message = b"".join(request.body)
    return Response(200, (("content-type", "application/grpc"),), (message,), None, (("grpc-status", "0"),))


def _compressed(request: Request) -> Response:
    """Compressed where that is accepted, as all that depends on it must be."""
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return _whole(200, HELLO)
    body = gzip.compress(HELLO, mtime=0)
    return Response(200, (("content-encoding", "gzip"), ("vary", "accept-encoding")), (body,), len(body))


def _trailers(request: Request) -> Response:
    """The request's trailers; and trailers after that."""
    for _ in request.body:
        pass
    body = json.dumps(request.trailers, sort_keys=True).encode()
    return Response(200, (("trailer", "x-sum"),), (body,), None, (("x-sum", sha256(body).hexdigest()),))


def _hinted() -> Response:
    return Response(200, (("x-lab", "origin"),), (HELLO,), len(HELLO), hints=(("link", "</style.css>; rel=preload"),))


def _knows(request: Request) -> bytes:
    """What tells who knows a secret from who does not, and not the secret."""
    return sha256(request.headers.get("authorization", "").encode()).hexdigest().encode()


def _bytes(size: int) -> Response:
    return Response(200, (("content-type", "application/octet-stream"),), blocks(size), size)


_PAGES: dict[str, Callable[[Request, str], Response]] = {
    "hello": lambda request, rest: _whole(200, HELLO),
    "facts": lambda request, rest: _whole(200, json.dumps(request.facts).encode(), "application/json"),
    "headers": lambda request, rest: _whole(200, json.dumps(request.headers).encode(), "application/json"),
    "bytes": lambda request, rest: _bytes(int(rest)),
    "authorization": lambda request, rest: _whole(200, _knows(request)),
    "away": lambda request, rest: Response(302, (("location", f"https://{rest}"),), (), 0),
    "digest": lambda request, rest: _whole(200, digest(request.body).encode()),
    "compressed": lambda request, rest: _compressed(request),
    "trailers": lambda request, rest: _trailers(request),
    "hinted": lambda request, rest: _hinted(),
    "slow": lambda request, rest: Response(200, (("content-type", "text/plain"),), _slow()),
    "status": lambda request, rest: _whole(int(rest), b"as you like it\n"),
    "lab.Echo": lambda request, rest: _grpc(request),
}
