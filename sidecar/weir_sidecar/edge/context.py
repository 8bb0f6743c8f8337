"""What every part of the edge is given: config, decisions, learned names, the record sink, clocks and ids.

One object for the whole process. `config` and `decide` change together, when the config is read again; all else stays.
Nothing in the edge reads a clock, makes an id or writes a record by any other way, so tests own all of them.
"""

from collections.abc import Callable

import msgspec

from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.contract.flow import Decision, FlowRecord, Protocol
from weir_sidecar.core.names import LearnedNames
from weir_sidecar.core.verdict import FlowFacts, Verdict

type Endpoint = tuple[str, int]
"""Address as text, and port."""


class EdgeContext(msgspec.Struct, kw_only=True, gc=False):
    """The edge's surroundings. Read `config` and `decide` anew for each flow; never keep them."""

    config: SidecarConfig
    decide: Callable[[FlowFacts], Verdict]
    names: LearnedNames
    record: Callable[[FlowRecord], None]
    """Takes each flow's one record, when the flow has ended."""
    now: Callable[[], float]
    """Monotonic seconds."""
    wall: Callable[[], str]
    """The time of day, RFC 3339 in UTC."""
    new_id: Callable[[], str]
    """A fresh id for a flow."""
    uid_of: Callable[[Endpoint, Endpoint, int], int | None]
    """UID of the socket (client, destination, IPPROTO_TCP or IPPROTO_UDP); None when it cannot be known."""

    def may_connect(self, destination: Endpoint, uid: int | None) -> bool:
        """Whether the policy lets a TCP connection through of which nothing more is ever known.

        Then the upstream may be connected before the client has spoken: it would be, if the client never did.
        """
        address, port = destination
        facts = FlowFacts(
            protocol=Protocol.TCP,
            address=address,
            port=port,
            host=self.names.name_of(address, self.now()),
            uid=uid,
        )
        return self.decide(facts).decision is not Decision.DENY

    def adopt(self, config: SidecarConfig, decide: Callable[[FlowFacts], Verdict]) -> None:
        """Go on with another config and its decisions; flows that were decided before stay as they were decided."""
        self.config = config
        self.decide = decide
