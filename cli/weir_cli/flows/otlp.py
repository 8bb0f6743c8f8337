"""Sends spans to a collector by OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp/), with the packages of the extra `otel`.

How the exporter logs in and for how long it tries is said to it as to every other: by OTEL_EXPORTER_OTLP_HEADERS,
OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_EXPORTER_OTLP_TIMEOUT and the like.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Queue
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import requests
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from weir_cli.flows.messages import ExportError
from weir_cli.flows.spans import Span
from weir_sidecar import __version__

_PATH = "/v1/traces"
_BATCH = 512
_QUEUE = 4 * _BATCH
_PAUSE = 1.0
"""Seconds that the first span of a batch waits for others."""
_MOST_TOLD = 200
_SCOPE = InstrumentationScope("weir", __version__)


class Sender:
    """Sends spans from a thread of its own; `close` it, which sends what is left.

    A collector that is away ends it: `put` raises `ExportError`. If it is `patient`, what cannot be sent is lost and
    counted, `warn` is told when that begins, and it goes on.
    """

    def __init__(self, url: str, warn: Callable[[str], object], *, patient: bool) -> None:
        """Raises `ExportError` for a URL, or a setting in the environment, that makes no sense."""
        self.sent = 0
        self.lost = 0
        self.why: str | None = None
        """Why the last ones could not be sent."""
        self._url = _endpoint(url)
        self._warn = warn
        self._patient = patient
        self._session = _Session()
        self._exporter = _exporter(self._url, self._session)
        self._queue: Queue[ReadableSpan | None] = Queue(_QUEUE)
        self._closing = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, span: Span, resource: Resource) -> None:
        """Send a span, soon. Waits while too many are on their way, so that records wait where they come from."""
        if self.why is not None and not self._patient:
            raise ExportError(self.why)
        self._queue.put(_readable(span, resource))

    def close(self) -> None:
        """Send what is left, and end."""
        self._closing.set()
        self._queue.put(None)
        self._thread.join()
        self._session.close()

    def _run(self) -> None:
        while not (self._closing.is_set() and self._queue.empty()):
            batch = self._batch()
            if batch:
                self._send(batch)

    def _batch(self) -> list[ReadableSpan]:
        found = [self._queue.get()]
        if self._queue.qsize() < _BATCH:
            self._closing.wait(_PAUSE)
        while len(found) < _BATCH and not self._queue.empty():
            found.append(self._queue.get())
        return [one for one in found if one is not None]

    def _send(self, batch: list[ReadableSpan]) -> None:
        if self.why is not None and (self._closing.is_set() or not self._patient):
            self.lost += len(batch)  # it is away: each further try would take as long
            return
        session = self._session
        session.forget()
        done = self._exporter.export(batch) is SpanExportResult.SUCCESS and (session.why is None or session.refused)
        lost = session.refused if done else len(batch)
        self.sent += len(batch) - lost
        self.lost += lost
        why = f"{self._url}: {session.why or 'the spans could not be made a request'}" if lost else None
        if why is not None and self.why is None and self._patient:
            self._warn(f"{why}; spans are lost until that is over")
        self.why = why


class Sources:
    """What spans are of: the resource of each pod, or of one machine."""

    def __init__(self, attributes: Callable[[str | None], Mapping[str, str]]) -> None:
        """`attributes`: those of a pod's name, asked for once; without one, of what has no pod."""
        self._attributes = attributes
        self._known: dict[str | None, Resource] = {}

    def of(self, pod: str | None) -> Resource:
        """The resource, with what OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME add."""
        if pod not in self._known:
            self._known[pod] = Resource.create(dict(self._attributes(pod)))
        return self._known[pod]


class _Session(requests.Session):
    """Remembers how the last request went: the exporter tells its log alone."""

    why: str | None = None
    refused = 0
    """How many spans the collector took notice of and did not keep."""

    def forget(self) -> None:
        self.why, self.refused = None, 0

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        self.forget()
        try:
            response = super().send(request, **kwargs)
        except OSError as error:  # each of requests' own errors is one
            self.why = _explained(error)
            raise
        if response.status_code // 100 != 2:  # for the exporter, a redirection is a success
            said = response.text[:_MOST_TOLD].strip() if response.text.isprintable() else ""
            self.why = f"it answered {response.status_code} {response.reason}{said and ': '}{said}"
        else:
            self._note(response.content)
        return response

    def _note(self, content: bytes) -> None:
        answer = ExportTraceServiceResponse()
        with suppress(DecodeError):  # the status alone says that it has them
            answer.ParseFromString(content)
        self.refused = answer.partial_success.rejected_spans
        if self.refused:
            self.why = f"it refused {self.refused} spans: {answer.partial_success.error_message[:_MOST_TOLD]}"


def _explained(error: BaseException) -> str:
    """What the system said, at the bottom of what libraries made of it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        error, found = found, found.__cause__ or found.__context__
    return str(error) or type(error).__name__


def _endpoint(url: str) -> str:
    """The URL for spans: a collector's own, or that with a path."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ExportError(f"--otlp {url}: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ExportError(f"--otlp: found {url!r}; expected the URL of a collector, such as http://localhost:4318")
    return url if parts.path not in {"", "/"} else parts._replace(path=_PATH).geturl()


def _exporter(url: str, session: requests.Session) -> OTLPSpanExporter:
    try:
        exporter = OTLPSpanExporter(url, session=session)  # it warns of settings that it does not know
    except (ValueError, OSError) as error:
        raise ExportError(f"the exporter's settings (OTEL_EXPORTER_OTLP_…) cannot be used: {error}") from error
    log = logging.getLogger("opentelemetry")
    log.propagate = False  # what it says from now on is said here
    log.addHandler(logging.NullHandler())
    return exporter


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    place = span.place
    flags = TraceFlags(TraceFlags.SAMPLED if place.sampled else TraceFlags.DEFAULT)
    trace = int(place.trace_id, 16)
    parent = None
    if place.parent_id is not None:
        parent = SpanContext(trace, int(place.parent_id, 16), is_remote=True, trace_flags=flags)
    return ReadableSpan(
        span.name,
        SpanContext(trace, int(place.span_id, 16), is_remote=False, trace_flags=flags),
        parent,
        resource,
        span.attributes,
        kind=SpanKind.CLIENT,
        status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
        start_time=span.start,
        end_time=span.end,
        instrumentation_scope=_SCOPE,
    )
