"""An HTTP/2 client and a server of the `h2` package with the relay between them, without sockets; bytes in any portions."""

from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events

from weir_sidecar.contract.request import RequestDecision, RequestError
from weir_sidecar.core.http2_relay import HTTP2Relay
from weir_sidecar.core.http2_tap import StreamTap
from weir_sidecar.core.http_policy import ALLOWED, RequestFacts, RequestVerdict
from weir_sidecar.core.placeholders import BodyWatch
from weir_sidecar.core.websocket import WebSocket
from weir_sidecar.edge.requests import FlowRequests
from weir_sidecar.wire.websocket import extensions as agreed

type Judge = Callable[[RequestFacts], RequestVerdict]


class Told:
    """A request, and what the relay told of it."""

    def __init__(self, number: int, facts: RequestFacts | None, verdict: RequestVerdict) -> None:
        self.number = number
        self.facts = facts
        self.verdict = verdict
        self.request_bytes = 0
        self.response_bytes = 0
        self.tap: StreamTap | None = None
        self.answers = 0
        self.ends: list[tuple[int | None, RequestError | None]] = []

    def asked(self) -> None: ...

    def upgraded(self, extensions: bytes) -> WebSocket:
        return WebSocket(agreed(extensions), None)

    def answered(self) -> None:
        self.answers += 1

    def finished(self, status: int | None, error: RequestError | None = None) -> None:
        self.ends.append((status, error or self.verdict.error))


class Requests:
    """Decides with `judge`, and keeps all that was told, by stream."""

    def __init__(self, judge: Judge = lambda _: ALLOWED, *, governs: bool = True) -> None:
        self.judge = judge
        self.governs = governs
        self.all: dict[int, Told] = {}
        self.placeholders: tuple[bytes, ...] = ()

    def started(self, number: int, facts: RequestFacts) -> Told:
        return self._keep(Told(number, facts, self.judge(facts)))

    def unreadable(self, number: int, error: RequestError, status: int) -> Told:
        decision = RequestDecision.DENY if self.governs else RequestDecision.ALLOW
        return self._keep(Told(number, None, RequestVerdict(decision, status=status, error=error)))

    def watch(self) -> BodyWatch | None:
        return BodyWatch(self.placeholders) if self.placeholders else None

    def _keep(self, told: Told) -> Told:
        assert told.number not in self.all, "each stream is one request"
        self.all[told.number] = told
        return told


class Timers:
    """Stands for the event loop's `call_later`; the test says when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        self._due.append((self.now + seconds, len(self._due), call))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = sorted(entry for entry in self._due if entry[0] <= self.now)
        self._due = [entry for entry in self._due if entry[0] > self.now]
        for _, _, call in due:
            call()


def portions(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = next(sizes)
        yield data[at : at + size]
        at += size


def forever(size: int) -> Iterator[int]:
    while True:
        yield size


class Pair:
    """`client` and `server` are h2 connections that have begun; `run` moves bytes until there are none."""

    def __init__(
        self,
        judge: Judge = lambda _: ALLOWED,
        *,
        sizes: Iterator[int] | None = None,
        governs: bool = True,
        begin: bool = True,
        flow: FlowRequests | None = None,
    ) -> None:
        """`flow`: who decides and records in the place of `judge`."""
        self.requests = Requests(judge, governs=governs)
        self.timers = Timers()
        self.relay = HTTP2Relay(flow or self.requests, self.timers, lambda: None)
        self.client = h2.connection.H2Connection(
            h2.config.H2Configuration(header_encoding=None, normalize_inbound_headers=False)
        )
        self.server = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None, normalize_inbound_headers=False)
        )
        self.client_events: list[h2.events.Event] = []
        self.server_events: list[h2.events.Event] = []
        self.to_client = bytearray()
        self.to_server = bytearray()
        self._sizes = sizes or forever(65536)
        if begin:
            self.client.initiate_connection()
            self.server.initiate_connection()
            self.run()

    def run(self) -> None:
        """Until both have nothing more to say."""
        moved = True
        while moved:
            moved = False
            if self.relay.reads_client and (data := self.client.data_to_send()):
                moved = True
                self.from_client(data)
            if self.relay.reads_upstream and (data := self.server.data_to_send()):
                moved = True
                self.from_server(data)
            moved |= self._deliver()

    def from_client(self, data: bytes) -> None:
        for part in portions(data, self._sizes):
            self.relay.from_client(part)
            self._deliver()

    def from_server(self, data: bytes) -> None:
        for part in portions(data, self._sizes):
            self.relay.from_upstream(part)
            self._deliver()

    def _deliver(self) -> bool:
        up, down = self.relay.for_upstream(), self.relay.for_client()
        if up:
            self.to_server += up
            self.server_events += self.server.receive_data(up)
        if down:
            self.to_client += down
            self.client_events += self.client.receive_data(down)
        return bool(up or down)

    def request(self, stream: int, path: str = "/", *, method: str = "GET", end: bool = True, more: tuple = ()) -> None:
        fields = [(":method", method), (":scheme", "https"), (":path", path), (":authority", "a.test"), *more]
        self.client.send_headers(stream, fields, end_stream=end)

    def at_client(self, kind: type, stream: int | None = None) -> list:
        return [
            e for e in self.client_events if isinstance(e, kind) and stream in {None, getattr(e, "stream_id", None)}
        ]

    def at_server(self, kind: type, stream: int | None = None) -> list:
        return [
            e for e in self.server_events if isinstance(e, kind) and stream in {None, getattr(e, "stream_id", None)}
        ]
