"""All policies of a cluster: which of them select a pod, and what they come to together.

Cluster policies come before namespaced ones, then the lower `priority`, then the name. Where a cluster policy selects a
pod, namespaced ones cannot widen what it denies:

- their `capture`, `failureMode`, `startup`, `verifyAddress` and `logging.sample` are ignored;
- so are their `rules` if the cluster policies' default is Deny, because rules are asked before the default;
- a rule of theirs that names addresses and no hosts does not spare a flow what `verifyAddress` refuses.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from weir_operator import models
from weir_operator.arrange import Arranged
from weir_operator.cluster import checks
from weir_operator.cluster.documents import read_object
from weir_operator.cluster.facts import NamespaceFacts
from weir_operator.cluster.selection import Selection
from weir_operator.cluster.selector import Selector, compile_selector
from weir_operator.compile import Injection, compile_injection, compile_policies, rules_of
from weir_operator.load import Loaded
from weir_operator.problems import PolicyError
from weir_sidecar.contract.config import DNS, Action, Capture, SidecarConfig, encode


class PolicyKey(msgspec.Struct, frozen=True):
    """The name of a policy, of any of the four kinds; as text KIND/NAME or KIND/NAMESPACE/NAME."""

    kind: str
    namespace: str | None
    name: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part is not None)

    @property
    def cluster(self) -> bool:
        """Whether it is of a cluster-scoped kind."""
        return self.kind in models.CLUSTER_KINDS


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
    share: bool = True
    """Whether the pods of a workload are told what one of them learned about trust."""


class _Interception(msgspec.Struct, frozen=True):
    """An interception policy that can be used."""

    key: PolicyKey
    loaded: Loaded[models.InterceptionPolicy]
    pods: Selector
    namespaces: Selector

    @property
    def spec(self) -> models.InterceptionSpec:
        return self.loaded.document.spec

    @property
    def ref(self) -> PolicyKey | None:
        """The trust policy that it refers to; None also where a cluster policy refers to a namespaced one."""
        ref = self.spec.trust_policy_ref
        if ref is None or (self.key.cluster and ref.kind is models.TrustPolicyKind.TRUST_POLICY):
            return None
        cluster = ref.kind is models.TrustPolicyKind.CLUSTER_TRUST_POLICY
        return PolicyKey(ref.kind.value, None if cluster else self.key.namespace, ref.name)


class _Trust(msgspec.Struct, frozen=True):
    """A trust policy that can be used."""

    key: PolicyKey
    loaded: Loaded[models.TrustPolicy]


class _Read(msgspec.Struct, frozen=True):
    """An object as it was given, and what could be made of it."""

    source: Mapping[str, Any]
    key: PolicyKey
    generation: int
    usable: _Interception | _Trust | None
    problems: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


class _Namespace(msgspec.Struct, frozen=True):
    """What may select pods of a namespace as long as it has these labels, and the trust policies that it has."""

    labels: Mapping[str, str]
    interception: Selection
    trust: tuple[int, ...]


class Policies:
    """The policies of a cluster at one moment; never changed. Plans are made when first asked for, and kept."""

    def __init__(self, read: Mapping[PolicyKey, _Read]) -> None:
        self._read = read
        usable = [one.usable for one in read.values()]
        self._interception = sorted((one for one in usable if isinstance(one, _Interception)), key=_order)
        self._trust = sorted((one for one in usable if isinstance(one, _Trust)), key=_order)
        ranks = {one.key: rank for rank, one in enumerate(self._trust)}
        self._refs = [ranks.get(one.ref) if one.ref else None for one in self._interception]
        self._own: dict[str | None, list[int]] = {}
        for rank, policy in enumerate(self._interception):
            self._own.setdefault(policy.key.namespace, []).append(rank)
        self._own_trust: dict[str | None, list[int]] = {}
        for rank, trust in enumerate(self._trust):
            self._own_trust.setdefault(trust.key.namespace, []).append(rank)
        self._namespaces: dict[str, _Namespace] = {}
        self._plans: dict[tuple[tuple[int, ...], tuple[int, ...]], Plan] = {}
        self.problems: Mapping[PolicyKey, tuple[str, ...]] = {
            **{one.key: one.problems for one in read.values() if one.problems},
            **{key: (text,) for key, text in self._lost_refs()},
        }
        """What is wrong, by policy. It takes no part then; but if only its `trustPolicyRef` leads nowhere, it does, and
        the reference counts as not given."""
        unused = dict(self._unused())
        self.notices: Mapping[PolicyKey, tuple[str, ...]] = {
            one.key: told for one in read.values() if (told := one.notices + unused.get(one.key, ()))
        }
        """What has no effect, by policy."""

    @classmethod
    def of(cls, objects: Iterable[Mapping[str, Any]]) -> "Policies":
        """All policies and trust policies of a cluster."""
        return cls({}).followed_by(objects)

    def followed_by(self, objects: Iterable[Mapping[str, Any]]) -> "Policies":
        """All policies a moment later. An object that is the very one that it was is not read again."""
        known = {id(one.source): one for one in self._read.values()}
        read = (known.get(id(obj)) or _read(obj) for obj in objects)
        return Policies({one.key: one for one in read})

    def keys(self) -> tuple[PolicyKey, ...]:
        """All that was given, also what takes no part."""
        return tuple(self._read)

    def generation(self, key: PolicyKey) -> int:
        """`metadata.generation` of a policy; 0 if there is none."""
        read = self._read.get(key)
        return read.generation if read else 0

    def selects(self, key: PolicyKey, namespace: NamespaceFacts, labels: Mapping[str, str]) -> bool:
        """Whether a policy takes part and selects pods of this namespace with these labels. No trust policy does."""
        read = self._read.get(key)
        if read is None or not isinstance(read.usable, _Interception):
            return False
        return _reaches(read.usable, namespace) and read.usable.pods.matches(labels)

    def plan(self, namespace: NamespaceFacts, labels: Mapping[str, str]) -> Plan | None:
        """What a pod of this namespace with these labels gets; None: no policy selects it."""
        there = self._namespace(namespace)
        ranks = there.interception.of(labels)
        if not ranks:
            return None
        trust = self._referred(ranks) or there.trust
        plan = self._plans.get((ranks, trust))
        if plan is None:
            plan = _plan([self._interception[rank] for rank in ranks], [self._trust[rank] for rank in trust])
            self._plans[ranks, trust] = plan
        return plan

    def _referred(self, ranks: Iterable[int]) -> tuple[int, ...]:
        """The trust policies that policies refer to, cluster ones first; empty if they refer to none.

        Where only those of the namespace are referred to, the cluster's own come before them all the same: what they say
        is not for a namespace to undo.
        """
        referred = dict.fromkeys(ref for ref in (self._refs[rank] for rank in ranks) if ref is not None)
        cluster = tuple(ref for ref in referred if self._trust[ref].key.cluster)
        own = tuple(ref for ref in referred if not self._trust[ref].key.cluster)
        return (cluster or tuple(self._own_trust.get(None, ()))) + own if referred else ()

    @staticmethod
    def unselected() -> Plan:
        """What a captured pod gets that no policy selects any more: everything passes, unchanged."""
        return _UNSELECTED

    def _namespace(self, facts: NamespaceFacts) -> _Namespace:
        there = self._namespaces.get(facts.name)
        if there is None or there.labels != facts.labels:
            reaching = (rank for rank in self._own.get(None, ()) if _reaches(self._interception[rank], facts))
            ranks = [*reaching, *self._own.get(facts.name, ())]
            there = self._namespaces[facts.name] = _Namespace(
                facts.labels,
                Selection((rank, self._interception[rank].pods) for rank in ranks),
                (*self._own_trust.get(None, ()), *self._own_trust.get(facts.name, ())),
            )
        return there

    def _lost_refs(self) -> Iterator[tuple[PolicyKey, str]]:
        """References to trust policies that lead nowhere."""
        for policy, found in zip(self._interception, self._refs, strict=True):
            ref = policy.spec.trust_policy_ref
            if ref is None or found is not None:
                continue
            if policy.ref is None:
                text = (
                    f"found {ref.kind}, which lies in a namespace; allowed in a {policy.key.kind}: ClusterTrustPolicy"
                )
            elif policy.ref in self._read:
                text = f"found {policy.ref}, which cannot be used itself: its own status says why"
            else:
                text = f"found {policy.ref}, which is not there; create it, or leave the field out"
            yield policy.key, policy.loaded.problem("spec.trustPolicyRef", f"{text}. It counts as not given").said

    def _unused(self) -> Iterator[tuple[PolicyKey, tuple[str, ...]]]:
        """Trust policies that no pod can have, whatever policies select it."""
        referred = set(self._refs)
        asking = {self._interception[rank].key.namespace for rank, ref in enumerate(self._refs) if ref is None}
        for rank, trust in enumerate(self._trust):
            asked = None in asking or trust.key.namespace in asking or (trust.key.cluster and asking)
            if rank not in referred and not asked:
                text = "no effect: no policy refers to it, and none that could use it goes without trustPolicyRef"
                yield trust.key, (text,)


def _order(one: _Interception | _Trust) -> tuple[bool, int, str, str]:
    priority = one.spec.priority if isinstance(one, _Interception) else 0
    return (not one.key.cluster, priority, one.key.name, one.key.namespace or "")


def _reaches(policy: _Interception, namespace: NamespaceFacts) -> bool:
    if policy.key.namespace is not None:
        return policy.key.namespace == namespace.name
    return policy.namespaces.matches(namespace.labels)


def _read(obj: Mapping[str, Any]) -> _Read:
    metadata = obj.get("metadata") or {}
    key = PolicyKey(str(obj.get("kind")), metadata.get("namespace"), str(metadata.get("name")))
    generation = metadata.get("generation") or 0
    try:
        loaded = read_object(obj)
    except PolicyError as error:
        return _Read(obj, key, generation, None, tuple(problem.said for problem in error.problems))
    notices = tuple(problem.said for problem in checks.notices(loaded))
    problems = tuple(problem.said for problem in checks.problems(loaded))
    return _Read(obj, key, generation, None if problems else _usable(key, loaded), problems, notices)


def _usable(key: PolicyKey, loaded: Loaded[Any]) -> _Interception | _Trust:
    if isinstance(loaded.document, models.TrustPolicy):
        return _Trust(key, loaded)
    policy = cast(Loaded[models.InterceptionPolicy], loaded)
    spec = policy.document.spec
    return _Interception(key, policy, compile_selector(spec.pod_selector), compile_selector(spec.namespace_selector))


def _plan(policies: Sequence[_Interception], trust: Sequence[_Trust]) -> Plan:
    governed = any(policy.key.cluster for policy in policies)
    arranged = Arranged(
        tuple(_governed(policies) if governed else (policy.loaded for policy in policies)),
        tuple(one.loaded for one in trust),
    )
    return Plan(
        _revised(_doubting(compile_policies(arranged, {}), policies) if governed else compile_policies(arranged, {})),
        compile_injection(arranged),
        tuple(policy.key for policy in policies),
        tuple(one.key for one in trust),
        governed,
        next((share for one in trust if (share := one.loaded.document.spec.fail_open.share) is not None), True),
    )


def _governed(policies: Iterable[_Interception]) -> Iterator[Loaded[models.InterceptionPolicy]]:
    """Policies of which some are cluster policies, without what the others may not say."""
    default: Action | None = None
    for policy in policies:  # cluster policies first
        if policy.key.cluster:
            default = default or policy.spec.default_action
            yield policy.loaded
            continue
        spec = replace(
            policy.spec,
            capture=models.Capture(),
            failure_mode=None,
            startup=None,
            verify_address=None,
            logging=replace(policy.spec.logging, sample=None),
            rules=() if default is Action.DENY else policy.spec.rules,
        )
        yield replace(policy.loaded, document=replace(policy.loaded.document, spec=spec))


def _doubting(config: SidecarConfig, policies: Iterable[_Interception]) -> SidecarConfig:
    """The config of policies of which some are cluster policies, with the rules of the others not trusting addresses."""
    first = sum(1 for policy in policies if policy.key.cluster for _ in rules_of(policy.loaded.document))
    doubting = (replace(rule, trusts_address=False) for rule in config.rules[first:])
    return replace(config, rules=(*config.rules[:first], *doubting))


def _revised(config: SidecarConfig) -> SidecarConfig:
    """The config with its revision: equal text, equal behaviour."""
    return replace(config, revision=sha256(encode(config)).hexdigest()[:16])


_UNSELECTED = Plan(
    _revised(
        SidecarConfig(
            default_action=Action.PASSTHROUGH,
            capture=Capture(dns=DNS(strip_ech=False, strip_h3=False, block_doh_canary=False)),
        )
    ),
    Injection(),
)
