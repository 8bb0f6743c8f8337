"""A request as a span of kind CLIENT, by OpenTelemetry's semantic conventions for HTTP.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

import datetime as dt
import hashlib

import msgspec

from weir_cli.flows import ids
from weir_cli.flows.messages import ExportError, authority
from weir_sidecar.contract.flow import FlowRecord
from weir_sidecar.contract.request import HTTPVersion, MessageVersion, RequestRecord, TraceRecord

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"))
_OTHER = "_OTHER"
_VERSIONS = {HTTPVersion.HTTP1: "1.1", HTTPVersion.HTTP2: "2"}
_FIRST_ERROR = 400
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TRACE_BYTES, _SPAN_BYTES = 16, 8


class Place(msgspec.Struct, frozen=True):
    """Where a span stands. Ids are hex; `parent_id` None: it is the first of its trace."""

    trace_id: str
    span_id: str
    parent_id: str | None
    sampled: bool


class Span(msgspec.Struct, frozen=True):
    """One span. Times: nanoseconds since 1970."""

    name: str
    place: Place
    start: int
    end: int
    failed: bool
    attributes: dict[str, str | int]


def is_wanted(request: RequestRecord) -> bool:
    """Whether there is to be a span: not where the client has decided that its trace is not recorded."""
    trace = request.trace
    return not isinstance(trace, TraceRecord) or trace.sampled or trace.parent_id is None


def span(request: RequestRecord, flow: FlowRecord | None) -> Span:
    """The span of a request. Raises `ExportError` if its times make no sense."""
    error = _error(request)
    known = request.method in _METHODS
    attributes = {
        "http.request.method": request.method if known else _OTHER,
        "http.request.method_original": None if known else request.method,
        "url.full": _url(request, flow),
        "server.address": request.host or (flow.address if flow else None),
        "server.port": request.port,
        "network.protocol.name": "http",
        "network.protocol.version": _version(request),
        "network.peer.address": flow.address if flow else None,
        "network.peer.port": flow.port if flow else None,
        "http.response.status_code": request.status,
        "http.request.body.size": request.request_bytes,
        "http.response.body.size": request.response_bytes,
        "error.type": error,
        "weir.decision": request.decision.value,
        "weir.rule": request.rule,
        "weir.request": f"{request.flow}/{request.number}",
        "weir.flow.reason": flow.reason.value if flow else None,
        "weir.flow.rule": flow.rule if flow else None,
    }
    start, end = _times(request)
    return Span(
        request.method if known else "HTTP",
        _place(request),
        start,
        end,
        error is not None,
        {name: value for name, value in attributes.items() if value is not None},
    )


def _place(request: RequestRecord) -> Place:
    """Ids that were not told are made of the record's own, so that what is sent twice is the same span."""
    source = f"{request.flow}/{request.number}".encode()
    own = hashlib.blake2b(source, digest_size=_SPAN_BYTES).hexdigest()
    trace = request.trace
    if not isinstance(trace, TraceRecord):
        return Place(hashlib.blake2b(source, digest_size=_TRACE_BYTES).hexdigest(), own, None, sampled=True)
    return Place(
        trace.trace_id, trace.span_id if isinstance(trace.span_id, str) else own, trace.parent_id, trace.sampled
    )


def _error(request: RequestRecord) -> str | None:
    """What went wrong, or that the answer is an error: of clients' spans that is 4xx too."""
    if request.error is not None:
        return request.error.value
    return str(request.status) if request.status is not None and request.status >= _FIRST_ERROR else None


def _url(request: RequestRecord, flow: FlowRecord | None) -> str | None:
    host = request.host or (flow.address if flow else None)
    if host is None:
        return None
    path = request.path if request.path.startswith("/") else ""
    return f"{request.scheme}://{authority(request, host)}{path}"


def _version(request: RequestRecord) -> str:
    message = request.request
    old = isinstance(message, msgspec.Struct) and message.version is MessageVersion.HTTP1_0
    return "1.0" if old else _VERSIONS[request.protocol]


def _times(request: RequestRecord) -> tuple[int, int]:
    try:
        ended = dt.datetime.fromisoformat(request.time).astimezone(dt.UTC) - _EPOCH
        end = ended // dt.timedelta(microseconds=1) * 1000
        start = end - round(request.duration_ms * 1e6)
    except (ValueError, OverflowError) as error:
        raise ExportError(
            f"{ids.name(request)}: found the time {request.time!r} and {request.duration_ms} ms; expected RFC 3339"
            " and a number that leaves a date"
        ) from error
    if start < 0:
        raise ExportError(f"{ids.name(request)}: began before 1970, by its time {request.time!r}")
    return start, end
