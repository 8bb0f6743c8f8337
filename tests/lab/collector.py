"""A collector that takes spans by OTLP over HTTP, decodes them, and answers as the test says."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Got(msgspec.Struct, frozen=True):
    """A span, the attributes of it and of its resource, and the name of its scope."""

    span: Span
    attributes: dict[str, str | int]
    resource: dict[str, str | int]
    scope: str


class Collector:
    """What came. `status` other than 200 refuses all; `rejects` says that so many were not kept."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.spans: list[Got] = []
        self.asked: list[tuple[str, str]] = []
        """Path and content type of each request."""
        self.status = 200
        self.rejects = 0
        self.came = Event()

    def take(self, body: bytes) -> bytes:
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    of = _attributes(resource.resource.attributes)
                    self.spans.append(Got(span, _attributes(span.attributes), of, scope.scope.name))
        self.came.set()
        partial = ExportTracePartialSuccess(rejected_spans=self.rejects, error_message="too many")
        return ExportTraceServiceResponse(partial_success=partial if self.rejects else None).SerializeToString()


def _attributes(pairs: Iterator[KeyValue]) -> dict[str, str | int]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in pairs}


@contextmanager
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.asked.append((self.path, self.headers["Content-Type"]))
            answer = found.take(body) if found.status == 200 else b"no room"
            self.send_response(found.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found = Collector(server.server_port)
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
