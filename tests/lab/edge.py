"""The edge's surroundings for a test: its own clock, ids and records, and stand-ins for the sockets that need privilege."""

import itertools
from collections.abc import Callable

from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.contract.flow import Decision, FlowRecord, Reason
from weir_sidecar.contract.request import RequestRecord
from weir_sidecar.core.http_policy import RequestPolicy
from weir_sidecar.core.names import LearnedNames
from weir_sidecar.core.verdict import FlowFacts, Verdict
from weir_sidecar.edge.context import EdgeContext, ToldRequest
from weir_sidecar.edge.icmp import Sockaddr

INTERCEPT = Verdict(Decision.INTERCEPT, Reason.DEFAULT)


class Surroundings:
    """A context whose clock stands still until the test moves it, and what was recorded and decided in it."""

    def __init__(
        self, config: SidecarConfig | None = None, decide: Callable[[FlowFacts], Verdict] = lambda _: INTERCEPT
    ) -> None:
        self.time = 1000.0
        self.records: list[FlowRecord] = []
        self.requests: list[RequestRecord] = []
        self.facts: list[FlowFacts] = []
        self._ids = itertools.count()
        self._decide = decide
        config = config or SidecarConfig()
        self.context = EdgeContext(
            config=config,
            decide=self._decided,
            requests=RequestPolicy(config),
            names=LearnedNames(),
            record=self.records.append,
            record_request=self._requested,
            now=lambda: self.time,
            wall=lambda: "2026-01-01T00:00:00.000Z",
            new_id=lambda: f"f{next(self._ids)}",
            uid_of=lambda _client, _destination, _protocol: 1000,
        )

    def _requested(self, told: ToldRequest) -> None:
        record = told.record()
        if told.keeps(record):
            self.requests.append(record)

    def _decided(self, facts: FlowFacts) -> Verdict:
        self.facts.append(facts)
        return self._decide(facts)


class SentReplies:
    """Keeps what would have been sent to clients."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Sockaddr, Sockaddr]] = []
        self.error = 0

    def send(self, data: bytes, client: Sockaddr, source: Sockaddr) -> int:
        self.sent.append((data, client, source))
        return self.error

    def close(self) -> None: ...


class SentUnreachable:
    """Keeps what ICMP would have told clients."""

    def __init__(self) -> None:
        self.sent: list[tuple[Sockaddr, Sockaddr, int]] = []

    def send(self, client: Sockaddr, destination: Sockaddr, error: int, datagram: bytes = b"") -> None:
        self.sent.append((client, destination, error))
