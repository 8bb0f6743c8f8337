"""What every part of the edge is given: config, decisions, learned names, the record sink, clocks and ids.

One object for the whole process. `config`, `decide` and `requests` change together, when the config is read again; all else stays.
Nothing in the edge reads a clock, makes an id or writes a record by any other way, so tests own all of them.
"""

import os
from collections.abc import Callable
from typing import Protocol

import msgspec

from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.contract.flow import Client, Decision, FlowError, FlowRecord, Reason
from weir_sidecar.contract.flow import Protocol as FlowProtocol
from weir_sidecar.contract.request import RequestRecord
from weir_sidecar.core.captured import POD_BYTES, Room
from weir_sidecar.core.http_policy import RequestPolicy
from weir_sidecar.core.names import LearnedNames
from weir_sidecar.core.verdict import FlowFacts, Verdict
from weir_sidecar.edge.credentials import Credentials

type Endpoint = tuple[str, int]
"""Address as text, and port."""


class ToldRequest(Protocol):
    """An HTTP request that has ended."""

    @property
    def is_large(self) -> bool:
        """Whether it holds more than a few facts, so that it is to be asked for its record at once."""

    def record(self) -> RequestRecord:
        """Its one record. To be asked for once."""

    def keeps(self, record: RequestRecord) -> bool:
        """Whether that goes anywhere but into the metrics."""


class EdgeContext(msgspec.Struct, kw_only=True, gc=False):
    """The edge's surroundings. Read `config`, `decide` and `requests` anew for each flow; never keep them."""

    config: SidecarConfig
    decide: Callable[[FlowFacts], Verdict]
    requests: RequestPolicy
    names: LearnedNames
    record: Callable[[FlowRecord], None]
    """Takes each flow's one record, when the flow has ended."""
    record_request: Callable[[ToldRequest], None]
    """Takes each HTTP request when it has ended, and asks it for its record a little later."""
    now: Callable[[], float]
    """Monotonic seconds."""
    wall: Callable[[], str]
    """The time of day, RFC 3339 in UTC."""
    new_id: Callable[[], str]
    """A fresh id for a flow."""
    random: Callable[[int], bytes] = os.urandom
    """So many random bytes, for ids of traces."""
    uid_of: Callable[[Endpoint, Endpoint, int], int | None]
    """UID of the socket (client, destination, IPPROTO_TCP or IPPROTO_UDP); None when it cannot be known."""
    credentials: Credentials = msgspec.field(default_factory=Credentials)
    """The secrets that rules add to requests."""
    room: Room = msgspec.field(default_factory=lambda: Room(POD_BYTES))
    """For what is captured of requests, of all flows together."""

    def may_connect(self, destination: Endpoint, uid: int | None) -> bool:
        """Whether the policy lets a TCP connection through of which nothing more is ever known.

        Then the upstream may be connected before the client has spoken: it would be, if the client never did.
        """
        address, port = destination
        facts = FlowFacts(
            protocol=FlowProtocol.TCP,
            address=address,
            port=port,
            host=self.names.name_of(address, self.now()),
            uid=uid,
        )
        return self.decide(facts).decision is not Decision.DENY

    def record_unserved(  # noqa: PLR0913  (a record of a connection needs its ends, its client, and what became of it)
        self,
        client: Endpoint,
        destination: Endpoint,
        uid: int | None,
        decision: Decision,
        reason: Reason,
        *,
        host: str | None = None,
        error: FlowError | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Record a TCP connection that ended before anything of it was read."""
        self.record(
            FlowRecord(
                time=self.wall(),
                id=self.new_id(),
                client=Client(uid, address=client[0]),
                protocol=FlowProtocol.TCP,
                host=host,
                sni=None,
                address=destination[0],
                port=destination[1],
                alpn=None,
                decision=decision,
                reason=reason,
                rule=None,
                tls=None,
                bytes_up=0,
                bytes_down=0,
                duration_ms=round(seconds * 1000, 3),
                error=error,
            )
        )

    def adopt(self, config: SidecarConfig, decide: Callable[[FlowFacts], Verdict], requests: RequestPolicy) -> None:
        """Go on with another config and its decisions.

        Flows that were decided before stay as they were decided; the requests that come in them are decided by the new.
        """
        self.config = config
        self.decide = decide
        self.requests = requests
