"""Requests as an HTTP Archive: HAR 1.2 (http://www.softwareishard.com/blog/har-12-spec/), which browsers' tools read.

What was not recorded is left out or is -1, as the format says. WebSocket messages are told as Chrome and Firefox do
(`_webSocketMessages`); what Weir alone knows is in `_weir`: names that begin with an underscore are free.
"""

import base64
import datetime as dt
import email.utils
import json
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote_plus

import msgspec
from msgspec import UNSET

from weir_cli.flows import ids
from weir_cli.flows.messages import ExportError, authority, body, content, decoded, header, headers, is_told, payload
from weir_cli.flows.told import Told
from weir_sidecar import __version__
from weir_sidecar.contract.request import (
    LoggedBody,
    LoggedMessage,
    MessageVersion,
    Opcode,
    RequestRecord,
    Scheme,
    WebSocketMessage,
    WebSocketRecord,
    WebSocketSender,
)

_UNKNOWN = -1
_URL = "%/?:@!$&'()*+,;=-._~[]"
"""What stays in a path and query as it is (RFC 3986); some clients send other characters too."""
_NO_TYPE = "x-unknown"
"""What browsers write for a media type that they do not know."""
_SCHEMES = {Scheme.HTTP: "ws", Scheme.HTTPS: "wss"}
_OPCODES = {
    Opcode.CONTINUATION: 0,
    Opcode.TEXT: 1,
    Opcode.BINARY: 2,
    Opcode.CLOSE: 8,
    Opcode.PING: 9,
    Opcode.PONG: 10,
}
_SIDES = {WebSocketSender.CLIENT: "send", WebSocketSender.SERVER: "receive"}
_VERSIONS = {"http/1.1": MessageVersion.HTTP1_1, "h2": MessageVersion.HTTP2}

type _Object = dict[str, Any]


class Archive:
    """Takes records, and gives the archive of the requests among them, in order of when they began."""

    def __init__(self) -> None:
        # As text: as objects they take ten times the room.
        self._entries: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, told: Told) -> None:
        """Take a record. Raises `ExportError`."""
        if isinstance(told.record, RequestRecord):
            entry = _entry(told, told.record)
            self._entries.append((entry["startedDateTime"], json.dumps(entry)))

    def pieces(self) -> Iterator[str]:
        """The archive's text, which is ASCII, an entry a line."""
        creator = json.dumps({"name": "Weir", "version": __version__})
        yield f'{{"log": {{"version": "1.2", "creator": {creator}, "pages": [], "entries": ['
        between = "\n"
        for _, entry in sorted(self._entries):
            yield between + entry
            between = ",\n"
        yield "\n]}}\n"


def _entry(told: Told, request: RequestRecord) -> _Object:
    started = _began(request)
    entry = {
        "startedDateTime": started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        **_times(request),
        "request": _request(told, request),
        "response": _response(request),
        "cache": {},
        "connection": request.flow,
        "_weir": _own(told, request),
    }
    if told.flow is not None:
        entry["serverIPAddress"] = told.flow.address
    if isinstance(request.websocket, WebSocketRecord):
        entry["_resourceType"] = "websocket"
        if request.websocket.messages is not UNSET:
            entry["_webSocketMessages"] = [_message(one, started) for one in request.websocket.messages]
    return entry


def _began(request: RequestRecord) -> dt.datetime:
    try:
        ended = dt.datetime.fromisoformat(request.time).astimezone(dt.UTC)
        return ended - dt.timedelta(milliseconds=request.duration_ms)
    except (ValueError, OverflowError):
        raise ExportError(
            f"{ids.name(request)}: found the time {request.time!r} and {request.duration_ms} ms; expected RFC 3339"
        ) from None


def _times(request: RequestRecord) -> _Object:
    """`time` is the sum of the timings that are known; those for the connection are its flow's, and not told."""
    total = request.duration_ms
    answered = total if request.ttfb_ms is None else min(request.ttfb_ms, total)
    send = min(request.sent_ms, answered) if isinstance(request.sent_ms, float) else 0.0
    timings = {"send": send, "wait": answered - send, "receive": total - answered}
    rounded = {name: round(value, 3) for name, value in timings.items()}
    connection = dict.fromkeys(("blocked", "dns", "connect", "ssl"), _UNKNOWN)
    return {"time": round(sum(rounded.values()), 3), "timings": connection | rounded}


def _own(told: Told, request: RequestRecord) -> _Object:
    flow = told.flow
    known: _Object = {
        "id": ids.name(request),
        "pod": told.line.pod,
        "decision": request.decision,
        "rule": request.rule,
        "error": request.error,
        "reason": None if flow is None else flow.reason,
        "flowRule": None if flow is None else flow.rule,
    }
    if isinstance(request.websocket, WebSocketRecord):
        known["webSocket"] = msgspec.to_builtins(msgspec.structs.replace(request.websocket, messages=UNSET))
    return {name: value for name, value in known.items() if value is not None}


def _request(told: Told, request: RequestRecord) -> _Object:
    message = request.request
    fields = headers(message)
    logged = body(message)
    cookies = [_cookie(pair) for value in _values(fields, "cookie") for pair in value.split(";")]
    made = {
        "method": request.method,
        "url": _url(told, request),
        "httpVersion": _version(message, request),
        "cookies": cookies,
        "headers": _headers(message),
        "queryString": _query(request.path),
        "headersSize": _UNKNOWN,
        "bodySize": 0 if _switched(request) else request.request_bytes,
    }
    if logged is not None:
        made["postData"] = _post_data(logged)
    return made


def _response(request: RequestRecord) -> _Object:
    """Without an answer: status 0, as browsers have it."""
    message = request.response
    fields = headers(message)
    return {
        "status": request.status or 0,
        "statusText": "",
        "httpVersion": _version(message, request) if request.status else "",
        "cookies": [_set_cookie(value) for value in _values(fields, "set-cookie")],
        "headers": _headers(message),
        "content": _content(request),
        "redirectURL": header(fields, "location") or "",
        "headersSize": _UNKNOWN,
        "bodySize": _answered_bytes(request) if request.status else _UNKNOWN,
    }


def _switched(request: RequestRecord) -> bool:
    """Whether what followed was no body but another protocol."""
    return request.status == HTTPStatus.SWITCHING_PROTOCOLS


def _answered_bytes(request: RequestRecord) -> int:
    return 0 if _switched(request) else request.response_bytes


def _url(told: Told, request: RequestRecord) -> str:
    scheme = _SCHEMES[request.scheme] if isinstance(request.websocket, WebSocketRecord) else request.scheme
    host = request.host or (told.flow.address if told.flow is not None else "unknown.invalid")
    path = request.path if request.path.startswith("/") else f"/{request.path}"
    return f"{scheme}://{authority(request, host)}{quote(path, safe=_URL)}"


def _version(message: LoggedMessage | object, request: RequestRecord) -> str:
    return message.version if isinstance(message, LoggedMessage) else _VERSIONS[request.protocol]


def _headers(message: LoggedMessage | object) -> list[_Object]:
    return [
        {"name": name, "value": value or ""}
        | ({} if is_told(name, value) else {"comment": "the value is not recorded"})
        for name, value in headers(message)
    ]


def _values(fields: Iterable[tuple[str, str | None]], name: str) -> list[str]:
    return [value for found, value in fields if found.lower() == name and value is not None and is_told(found, value)]


def _query(path: str) -> list[_Object]:
    query = path.partition("?")[2]
    pairs = (part.partition("=") for part in query.split("&") if part)
    return [{"name": unquote_plus(name), "value": unquote_plus(value)} for name, _, value in pairs]


def _cookie(pair: str) -> _Object:
    name, _, value = pair.strip().partition("=")
    return {"name": name, "value": value}


def _set_cookie(value: str) -> _Object:
    """RFC 6265, section 4.1."""
    first, *attributes = value.split(";")
    cookie = _cookie(first)
    for attribute in attributes:
        name, _, said = attribute.strip().partition("=")
        match name.lower():
            case "path" | "domain":
                cookie[name.lower()] = said
            case "httponly":
                cookie["httpOnly"] = True
            case "secure":
                cookie["secure"] = True
            case "expires":
                cookie |= _expires(said)
    return cookie


def _expires(said: str) -> _Object:
    try:
        return {"expires": email.utils.parsedate_to_datetime(said).astimezone(dt.UTC).isoformat()}
    except (ValueError, OverflowError):
        return {}


def _post_data(logged: LoggedBody) -> _Object:
    """The format has text alone here, so other bytes are told in Base64, and it is said."""
    made: _Object = {"mimeType": logged.media_type or _NO_TYPE, **_text(logged)}
    if "encoding" in made:
        made["_encoding"] = made.pop("encoding")
    return made


def _content(request: RequestRecord) -> _Object:
    logged = body(request.response)
    if logged is None:
        media = header(headers(request.response), "content-type") or _NO_TYPE
        return {"size": _answered_bytes(request), "mimeType": media}
    text = _text(logged)
    whole = decoded(logged)
    size = request.response_bytes if logged.truncated or whole is None else len(whole)
    made: _Object = {"size": size, "mimeType": logged.media_type or _NO_TYPE, **text}
    if whole is not None and not logged.truncated and logged.encoding:
        made["compression"] = size - request.response_bytes
    return made


def _text(logged: LoggedBody) -> _Object:
    """A body's text, or its bytes in Base64; decompressed, as the format wants it, where that can be done."""
    whole = decoded(logged)
    raw = content(logged) if whole is None else whole
    said = {} if whole is not None else {"_contentEncoding": logged.encoding}
    if logged.truncated:
        said["comment"] = "only the beginning was recorded"
    try:
        return {"text": raw.decode(), **said}
    except UnicodeDecodeError:
        return {"text": base64.b64encode(raw).decode(), "encoding": "base64", **said}


def _message(message: WebSocketMessage, started: dt.datetime) -> _Object:
    """`time` in seconds since 1970; `data` is text of text messages and Base64 of others, as Chrome writes them."""
    raw = b"" if message.content is UNSET else payload(message.content, in_base64=message.base64)
    text = message.opcode is Opcode.TEXT
    made: _Object = {
        "type": _SIDES[message.sender],
        "time": round(started.timestamp() + message.at_ms / 1000, 6),
        "opcode": _OPCODES[message.opcode],
        "data": raw.decode(errors="replace") if text else base64.b64encode(raw).decode(),
    }
    if message.truncated or message.content is UNSET:
        made["_length"] = message.length
    return made
