"""All policies of a cluster: which of them select a pod, and what they come to together.

Cluster policies come before namespaced ones, then the lower `priority`, then the name. Where a cluster policy selects a
pod, namespaced policies cannot widen what it denies: of them only `rules` (if the cluster's default is not Deny),
`defaultAction` and `trustPolicyRef` count.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from weir_operator.cluster.facts import NamespaceFacts
from weir_operator.compile import Injection
from weir_sidecar.contract.config import SidecarConfig


class PolicyKey(msgspec.Struct, frozen=True, order=True):
    """The name of a policy, of any of the four kinds; as text KIND/NAME or KIND/NAMESPACE/NAME."""

    kind: str
    namespace: str | None
    name: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part is not None)


class Plan(msgspec.Struct, frozen=True):
    """What the policies that select a pod come to.

    `config` has its revision, but neither workload nor stream. `policies` select the pod, in the order in which they are
    asked; `trust` are the trust policies that take part. `cluster`: at least one of `policies` is a cluster policy.
    """

    config: SidecarConfig
    injection: Injection
    policies: tuple[PolicyKey, ...] = ()
    trust: tuple[PolicyKey, ...] = ()
    cluster: bool = False


class Policies:
    """The policies of a cluster at one moment; never changed. Plans are made when first asked for, and kept."""

    problems: Mapping[PolicyKey, tuple[str, ...]]
    """What is wrong, by policy. Such a policy takes no part; but one whose `trustPolicyRef` alone is of no use does."""
    notices: Mapping[PolicyKey, tuple[str, ...]]
    """What has no effect, by policy."""

    @classmethod
    def of(cls, objects: Iterable[Mapping[str, Any]], before: "Policies | None" = None) -> "Policies":
        """All policies and trust policies of a cluster. What is the same object as in `before` is not read again."""
        raise NotImplementedError

    def keys(self) -> tuple[PolicyKey, ...]:
        """All that was given, also what takes no part."""
        raise NotImplementedError

    def generation(self, key: PolicyKey) -> int:
        """`metadata.generation` of a policy; 0 if there is none."""
        raise NotImplementedError

    def selects(self, key: PolicyKey, namespace: NamespaceFacts, labels: Mapping[str, str]) -> bool:
        """Whether a policy takes part and selects pods of this namespace with these labels. No trust policy does."""
        raise NotImplementedError

    def plan(self, namespace: NamespaceFacts, labels: Mapping[str, str]) -> Plan | None:
        """What a pod of this namespace with these labels gets; None: no policy selects it."""
        raise NotImplementedError

    def unselected(self) -> Plan:
        """What a captured pod gets that no policy selects any more: everything passes, unchanged."""
        raise NotImplementedError
