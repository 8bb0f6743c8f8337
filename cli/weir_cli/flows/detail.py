"""Everything that is known of a flow or a request, as lines for people."""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import UNSET, UnsetType

from weir_cli.flows import ids
from weir_cli.flows.messages import authority, body, content, decoded, headers
from weir_cli.flows.table import amount, destination
from weir_cli.flows.told import Told
from weir_cli.text import printable
from weir_sidecar.contract.flow import FlowRecord
from weir_sidecar.contract.request import (
    LoggedBody,
    LoggedMessage,
    RequestRecord,
    TraceRecord,
    WebSocketMessage,
    WebSocketRecord,
    WebSocketSender,
)

_LABEL = 16
_ARROWS = {WebSocketSender.CLIENT: "→", WebSocketSender.SERVER: "←"}
_MOST_SHOWN = 64 << 10
"""Bytes of a body: they are laid out anew for each picture of the screen."""

type _Pair = tuple[str, object]


def detail(told: Told, requests: Sequence[Told]) -> list[str]:
    """The lines about a record; `requests`: those of its flow. Each is fit for a terminal, and may be long."""
    if isinstance(told.record, RequestRecord):
        lines = _of_request(told.record)
        lines += ["", "FLOW", *(_flow(told.flow) if told.flow is not None else _pairs([("ID", told.flow_id), _OPEN]))]
    else:
        lines = ["FLOW", *_flow(told.record)]
    if told.line.pod is not None:
        lines += _pairs([("pod", told.line.pod)])
    if requests:
        lines += ["", f"REQUESTS OF THE FLOW ({len(requests)})", *map(_brief, requests)]
    return [printable(line) for line in lines]


_OPEN = ("state", "open: its own record comes when it has ended")


def _of_request(request: RequestRecord) -> list[str]:
    lines = [
        "REQUEST",
        *_pairs(
            [
                ("ID", f"{ids.name(request)}  (--curl {ids.name(request)} repeats it)"),
                (
                    "request",
                    f"{request.method} {request.scheme}://{authority(request, request.host or '?')}{request.path}",
                ),
                ("answer", "none" if request.status is None else request.status),
                ("protocol", request.protocol),
                ("decision", request.decision),
                ("rule", request.rule or "none"),
                ("error", request.error),
                ("trace", _trace(request.trace)),
            ]
        ),
        "",
        "TIMING",
        *_pairs(
            [
                ("ended", request.time),
                ("sent after", _ms(None if request.sent_ms is UNSET else request.sent_ms)),
                ("answered after", _ms(request.ttfb_ms)),
                ("ended after", _ms(request.duration_ms)),
            ]
        ),
    ]
    lines += _message("SENT", request.request, request.request_bytes)
    lines += _message("RECEIVED", request.response, request.response_bytes)
    if isinstance(request.websocket, WebSocketRecord):
        lines += _websocket(request.websocket)
    return lines


def _trace(trace: TraceRecord | UnsetType) -> str | None:
    if not isinstance(trace, TraceRecord):
        return None
    own = f"span {trace.span_id}, " if isinstance(trace.span_id, str) else ""
    caller = f"child of {trace.parent_id}" if trace.parent_id is not None else "begun by the sidecar"
    return f"{trace.trace_id}: {own}{caller}, {'sampled' if trace.sampled else 'not sampled'}"


def _flow(flow: FlowRecord) -> list[str]:
    client, tls = flow.client, flow.tls
    return _pairs(
        [
            ("ID", f"{ids.short(flow.id)}  ({flow.id})"),
            ("to", f"{destination(flow)}  ({flow.address})"),
            ("protocol", flow.protocol if flow.alpn is None else f"{flow.protocol}, {flow.alpn}"),
            ("decision", flow.decision),
            ("reason", flow.reason),
            ("rule", flow.rule or "none: the default"),
            ("error", flow.error),
            ("client", ", ".join(_client(client.uid, client.address, client.ja4)) or "not known"),
            ("SNI", flow.sni),
            ("TLS of client", tls and tls.client_version),
            ("TLS of server", tls and tls.upstream_version),
            ("client's alert", tls and tls.client_alert),
            ("verify error", tls and tls.verify_error),
            ("address by DNS", {True: "yes", False: "no", None: None}[flow.address_from_dns]),
            ("bytes", f"{amount(flow.bytes_up)} up, {amount(flow.bytes_down)} down"),
            ("ended", flow.time),
            ("ended after", _ms(flow.duration_ms)),
        ]
    )


def _client(uid: int | None, address: str | None, ja4: str | None) -> Iterator[str]:
    if uid is not None:
        yield f"uid {uid}"
    if address is not None:
        yield address
    if ja4 is not None:
        yield f"JA4 {ja4}"


def _pairs(pairs: Iterable[_Pair]) -> list[str]:
    return [f"  {label:{_LABEL}}{value}" for label, value in pairs if value is not None]


def _ms(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} ms"


def _message(title: str, message: LoggedMessage | object, size: int) -> list[str]:
    lines = ["", f"{title}: a body of {amount(size)} bytes"]
    if not isinstance(message, LoggedMessage):
        return [*lines, "  header fields and body are not recorded"]
    lines.append(f"  {message.version}")
    for name, value in headers(message):
        lines.append(f"  {name}: {'(not recorded)' if value is None else value}")
    logged = body(message)
    if logged is not None:
        lines += ["", *(f"  {line}" for line in _body(logged))]
    return lines


def _body(logged: LoggedBody) -> Iterator[str]:
    whole = decoded(logged)
    raw = content(logged) if whole is None else whole
    yield from _text(raw[:_MOST_SHOWN], f"{len(raw)} bytes of {logged.media_type or 'unknown type'}")
    if len(raw) > _MOST_SHOWN:
        yield f"… {len(raw) - _MOST_SHOWN} more bytes are recorded; --har has them"
    if logged.truncated:
        yield "… only the beginning was recorded"


def _text(raw: bytes, otherwise: str) -> list[str]:
    """The lines of a text, cut where part of a character is missing; of what is no text, the other words."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        if error.end < len(raw) or error.reason != "unexpected end of data":
            return [otherwise]
        text = raw[: error.start].decode()
    return text.splitlines()


def _websocket(seen: WebSocketRecord) -> list[str]:
    lines = ["", "WEBSOCKET"]
    for side, frames in (("client", seen.client), ("server", seen.server)):
        counts = {name: getattr(frames, name) for name in frames.__struct_fields__}
        said = ", ".join(f"{count} {name}" for name, count in counts.items() if count and name != "close_code")
        code = "" if frames.close_code is None else f", closed with {frames.close_code}"
        lines += _pairs([(f"{side} sent", (said or "nothing") + code)])
    if seen.messages is not UNSET:
        lines += [f"  {line}" for message in seen.messages for line in _told(message)]
    if seen.messages_left_out is not UNSET and seen.messages_left_out:
        lines.append(f"  … and {seen.messages_left_out} more messages")
    return lines


def _told(message: WebSocketMessage) -> list[str]:
    start = f"{_ARROWS[message.sender]} {message.at_ms:10.1f} ms  {message.opcode:6} {amount(message.length):>6}  "
    if message.content is UNSET:
        return [start.rstrip()]
    lines = [f"{message.content} (Base64)"] if message.base64 else message.content.splitlines() or [""]
    if message.truncated:
        lines[-1] += "…"
    return [start + lines[0], *(" " * len(start) + line for line in lines[1:])]


def _brief(told: Told) -> str:
    request = told.record
    assert isinstance(request, RequestRecord)
    what = f"{request.method} {request.host or ''}{request.path}"
    return f"  {ids.name(request):12}{request.status or 'no answer'}  {what}  {request.duration_ms:.1f} ms"
