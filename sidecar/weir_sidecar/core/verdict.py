"""The facts a decision is taken on, and the decision: values that policy, trust cache, edge and `explain` share."""

import msgspec

from weir_sidecar.contract.flow import Decision, Protocol, Reason


class FlowFacts(msgspec.Struct, frozen=True):
    """What is known of a flow when it is decided. `address` is the original destination, as text.

    `host` is the best name: SNI, else Host, else what DNS said the address was; lower case, no final dot.
    `named_by_client` says that the client merely claims it (SNI or Host). `address_from_dns` says whether DNS gave
    `address` for `host` to this pod (None: nothing to compare, there is no name or DNS is not captured).
    """

    protocol: Protocol
    address: str
    port: int
    host: str | None = None
    named_by_client: bool = False
    address_from_dns: bool | None = None
    uid: int | None = None
    ja4: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What to do with a flow, why, and the rule that said so (None: the default, or no rule was asked)."""

    decision: Decision
    reason: Reason
    rule: str | None = None
