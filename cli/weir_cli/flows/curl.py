"""A request as a curl command that repeats it, quoted for a shell (sh; bash where it must have `$'…'`).

What was not recorded stands in it as a placeholder and is listed, so that nobody mistakes the command for a whole one.
"""

import base64
import ipaddress
import re
import shlex
from collections.abc import Iterable
from http import HTTPStatus

import msgspec

from weir_cli.flows import ids
from weir_cli.flows.messages import ExportError, Headers, authority, body, content, header, headers, is_told
from weir_cli.flows.told import Told
from weir_cli.text import printable
from weir_sidecar.contract.request import (
    REDACTED,
    HTTPVersion,
    LoggedMessage,
    MessageVersion,
    RequestRecord,
    Scheme,
)

PLACEHOLDER = "REDACTED"
"""Stands for a value that was not recorded."""
BODY_FILE = "BODY"
"""The file from which a body is read that was not recorded."""

_LONGEST = 100_000
"""Bytes; Linux allows an argument 128 KiB (execve(2))."""
_OWN = frozenset(("host", "content-length", "connection", "transfer-encoding", "keep-alive", "te", "expect"))
"""Header fields that curl makes by itself, or that are about one connection alone."""
_OFFERED = ("user-agent", "accept")
"""Those that curl adds unless told otherwise."""
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|/", re.IGNORECASE)
_GAPS = re.compile(r"(?<==)\*(?=&|#|$)|(?<=#)\*$|(?<=//)\*(?=@)")
"""What is not told of a URL: its query's values, its fragment, its user."""


class Command(msgspec.Struct, frozen=True):
    """A command, and in `missing` what has to be put in by hand."""

    text: str
    missing: tuple[str, ...]


def command(told: Told) -> Command:
    """The command that repeats a request. Raises `ExportError` where curl cannot, or its host is not known."""
    request = told.record
    assert isinstance(request, RequestRecord)
    if request.method == "CONNECT":
        raise ExportError(
            f"{ids.name(request)}: curl does not send CONNECT by itself, which asks for a tunnel or a WebSocket"
        )
    fields = headers(request.request)
    missing: list[str] = []
    feeding, sent = _body(request, missing)
    words = [
        ["curl", _version(request), *_method(request, sent=bool(sent))],
        *_where(told, request, missing),
        *_headers(request, fields, missing, sent=bool(sent)),
        *sent,
    ]
    lines = [" ".join(quoted(word) for word in line if word) for line in words]
    return Command(feeding + " \\\n  ".join(lines), tuple(missing))


def quoted(word: str) -> str:
    """A word for a shell. What could steer the terminal that shows it is escaped, in the way of bash, zsh and ksh."""
    if printable(word) == word:
        return shlex.quote(word)
    parts = (char if printable(char) == char and char not in "'\\" else _escaped(char) for char in word)
    return f"$'{''.join(parts)}'"


def _escaped(char: str) -> str:
    # Octal: unlike \x it has an end.
    return "".join(f"\\{byte:03o}" for byte in char.encode(errors="surrogatepass"))


def _version(request: RequestRecord) -> str:
    if request.protocol is HTTPVersion.HTTP2:
        return "--http2" if request.scheme is Scheme.HTTPS else "--http2-prior-knowledge"
    message = request.request
    old = isinstance(message, LoggedMessage) and message.version is MessageVersion.HTTP1_0
    return "--http1.0" if old else "--http1.1"


def _method(request: RequestRecord, *, sent: bool) -> list[str]:
    if request.method == "HEAD":
        return ["--head"]
    implied = "POST" if sent else "GET"
    return [] if request.method == implied else ["--request", request.method]


def _where(told: Told, request: RequestRecord, missing: list[str]) -> list[list[str]]:
    """The URL, as the server was asked: at the same address, and for the name in the ClientHello."""
    flow = told.flow
    host = request.host or (flow.address if flow is not None else None)
    if host is None:
        raise ExportError(f"{ids.name(request)}: it names no host, and the record of its flow is not there (yet)")
    connected = (flow.sni if flow is not None else None) or host
    path, mark, query = request.path.partition("?")
    query = _filled_in(query, missing)
    lines = [[f"{request.scheme}://{authority(request, connected)}{'' if path == '*' else path}{mark}{query}"]]
    if path == "*":
        lines.append(["--request-target", "*"])
    if re.search(r"/\.{1,2}(/|$)", path):
        lines.append(["--path-as-is"])
    if re.search(r"[\[\]{}]", request.path):
        lines.append(["--globoff"])
    if flow is not None and not _is_address(connected):
        address = f"[{flow.address}]" if ":" in flow.address else flow.address
        lines.append(["--resolve", f"{connected}:{request.port}:{address}"])
    if connected != host:
        lines.append(["--header", f"Host: {authority(request, host)}"])
    return lines


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _filled_in(query: str, missing: list[str]) -> str:
    """The query with placeholders for the values that are not told."""
    parts = [part.partition("=") for part in query.split("&")]
    missing.extend(f"the value of {name} in the URL" for name, _, value in parts if value == REDACTED)
    return "&".join(f"{name}{mark}{PLACEHOLDER if value == REDACTED else value}" for name, mark, value in parts)


def _headers(request: RequestRecord, fields: Headers, missing: list[str], *, sent: bool) -> Iterable[list[str]]:
    if not isinstance(request.request, LoggedMessage) or request.request.headers is msgspec.UNSET:
        missing.append("the header fields, none of which is recorded")
        logged = body(request.request)
        if logged is not None and logged.media_type:
            yield ["--header", f"Content-Type: {logged.media_type}"]
        return
    names = {name.lower() for name, _ in fields}
    upgrades = "upgrade" in names
    for name, value in fields:
        if name.lower() in _OWN and not (upgrades and name.lower() == "connection"):
            continue
        if not is_told(name, value):
            missing.append(f"the value of {name}")
            yield ["--header", f"{name}: {PLACEHOLDER}"]
            continue
        told, gaps = _GAPS.subn(PLACEHOLDER, value or "") if _URL.match(value or "") else (value, 0)
        if gaps:
            missing.append(f"parts of the value of {name}")
        # curl takes "Name:" for "do not send it", and "Name;" for an empty one.
        yield ["--header", f"{name}: {told}" if told else f"{name};"]
    # What curl would add of its own was not in the request.
    for name in (*_OFFERED, *(("content-type",) if sent else ())):
        if name not in names:
            yield ["--header", f"{name}:"]
    if header(fields, "accept-encoding") not in (None, "", "identity"):
        yield ["--compressed"]


def _body(request: RequestRecord, missing: list[str]) -> tuple[str, list[list[str]]]:
    """What has to stand before curl, and curl's own option."""
    logged = body(request.request)
    if logged is None or logged.truncated:
        if not request.request_bytes or request.status == HTTPStatus.SWITCHING_PROTOCOLS:
            return "", []
        missing.append(f"the body, {request.request_bytes} bytes: put it in a file named {BODY_FILE}")
        return "", [["--data-binary", f"@{BODY_FILE}"]]
    raw = content(logged)
    text = _argument(raw)
    if text is None:
        return f"printf %s {base64.b64encode(raw).decode()} | base64 -d | ", [["--data-binary", "@-"]]
    return "", [["--data-raw", text]] if text else []


def _argument(raw: bytes) -> str | None:
    """The body as an argument of a program; None: it cannot be one."""
    if len(raw) > _LONGEST or 0 in raw:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
