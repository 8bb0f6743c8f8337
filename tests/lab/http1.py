"""An HTTP/1.1 relay without sockets: what a client and an upstream send goes in, what each of them gets comes out."""

from collections.abc import Callable

from lab.edge import Surroundings
from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.contract.flow import Protocol
from weir_sidecar.contract.request import RequestError, RequestRecord
from weir_sidecar.core.policy import Policy
from weir_sidecar.core.verdict import FlowFacts
from weir_sidecar.edge.first_bytes import FirstBytes
from weir_sidecar.edge.relay_http1 import HTTP1Relay
from weir_sidecar.edge.requests import FlowRequests

HOST = "a.test"
FLOW = FlowFacts(Protocol.TLS, "192.0.2.1", 443, HOST, named_by_client=True, address_from_dns=True)


class FakeWay:
    """One direction: what is fed in goes through `on_bytes`, and what came out is in `sent`."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self.on_bytes: Callable[[bytes], bytes] | None = None
        self.on_end: Callable[[], bytes] | None = None
        self.sent = bytearray()
        self.finished = False
        self.backlog = 0
        self.paused = False
        self._waiting: list[bytes] = []
        self._ended = ended

    @property
    def total(self) -> int:
        return len(self.sent)

    def feed(self, data: bytes) -> None:
        if self.paused:
            self._waiting.append(data)
        else:
            passed = data if self.on_bytes is None else self.on_bytes(data)
            self.sent += passed

    def end(self) -> None:
        if self.on_end is not None:
            self.sent += self.on_end()

    def pause(self) -> None:
        self.paused = True

    def go_on(self) -> None:
        self.paused = False
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.feed(data)

    def inject(self, data: bytes) -> None:
        self.sent += data

    def finish(self) -> None:
        self.finished = True

    finish_after_this = finish

    def abort(self) -> None:
        self._ended()


class FakeTimer:
    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds = seconds
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Keeps what is to be called; the test calls it."""

    def __init__(self) -> None:
        self.timers: list[FakeTimer] = []
        self._soon: list[Callable[[], None]] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> FakeTimer:
        self.timers.append(FakeTimer(seconds, call))
        return self.timers[-1]

    def call_soon(self, call: Callable[[], None]) -> None:
        self._soon.append(call)

    def turn(self) -> None:
        soon, self._soon = self._soon, []
        for call in soon:
            call()

    def ring(self) -> None:
        """The next timer's time has come."""
        timer = next(timer for timer in self.timers if not timer.cancelled)
        timer.cancelled = True
        timer.call()


class RelayBench:
    """A relay between a client and an upstream that the test plays."""

    def __init__(
        self, config: SidecarConfig | None = None, *, rule: str | None = None, is_http: bool = True, facts=FLOW
    ) -> None:
        config = config or SidecarConfig()
        self.surroundings = Surroundings(config, Policy(config).decide)
        self.loop = FakeLoop()
        self.aborted = False
        self.up, self.down = FakeWay(self._abort), FakeWay(self._abort)
        self.requests = FlowRequests(self.surroundings.context, "f1", facts, rule)
        self.relay = (HTTP1Relay if is_http else FirstBytes)(self.loop, self.requests)
        self.relay.attach(self.up, self.down)

    def _abort(self) -> None:
        self.aborted = True

    @property
    def records(self) -> list[RequestRecord]:
        return self.surroundings.requests

    def client(self, data: bytes) -> bytes:
        """The client sends; returns what the upstream has got since the test last asked."""
        self.up.feed(data)
        return self.to_upstream()

    def upstream(self, data: bytes) -> bytes:
        """The upstream sends; returns what the client has got since the test last asked."""
        self.down.feed(data)
        self.loop.turn()
        return self.to_client()

    def to_upstream(self) -> bytes:
        data = bytes(self.up.sent)
        self.up.sent.clear()
        return data

    def to_client(self) -> bytes:
        data = bytes(self.down.sent)
        self.down.sent.clear()
        return data

    def close(self, error: RequestError = RequestError.CLIENT_GONE) -> list[RequestRecord]:
        self.relay.close(error)
        return self.records
