"""Which pods each policy selects, which of them are captured, and why the others are not. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from weir_operator.cluster.facts import NamespaceFacts, PodFacts
from weir_operator.cluster.policies import PolicyKey
from weir_operator.operate.world import INTERCEPTION_KINDS, World, changed_at


class MissedReason(StrEnum):
    """Why a selected pod is not captured. docs/operations.md says what to do about each."""

    WINDOWS = "Windows"
    STATIC_POD = "StaticPod"
    HOST_NETWORK = "HostNetwork"
    OPTED_OUT = "OptedOut"
    CREATED_BEFORE = "CreatedBefore"
    WEBHOOK_MISSED = "WebhookMissed"
    PLUGIN_MISSED = "PluginMissed"
    """It has a sidecar, and no rules: the CNI plugin was away when it started, or they were taken away since."""


class Missed(msgspec.Struct, frozen=True, order=True):
    """A selected pod that is not captured."""

    namespace: str
    name: str
    reason: MissedReason


class Tally(msgspec.Struct, frozen=True):
    """A policy's pods, those that have ended left out."""

    selected: int = 0
    captured: int = 0
    missed: tuple[Missed, ...] = ()
    """In order of namespace and name."""


def tally(world: World) -> dict[PolicyKey, Tally]:
    """The pods of each interception policy. One that takes no part has none."""
    since = {key: changed_at(obj) for key, obj in world.objects.items() if key.kind in INTERCEPTION_KINDS}
    captured: Counter[PolicyKey] = Counter()
    missed: defaultdict[PolicyKey, list[Missed]] = defaultdict(list)
    for keys, pod in _selected(world, since):
        if pod.captured and not without_rules(world, pod):
            captured.update(keys)
            continue
        cluster = any(key.cluster for key in keys)
        for key in keys:
            missed[key].append(Missed(pod.namespace, pod.name, why(pod, since[key], cluster=cluster)))
    return {key: Tally(captured[key] + len(missed[key]), captured[key], tuple(sorted(missed[key]))) for key in since}


def why(pod: PodFacts, since: str, *, cluster: bool) -> MissedReason:
    """Why a pod that a policy selects, whose spec was written at `since`, is not captured.

    `cluster`: some cluster policy selects it, so its own word to be left alone does not count.
    """
    if pod.captured:
        return MissedReason.PLUGIN_MISSED
    if pod.windows:
        return MissedReason.WINDOWS
    if pod.static:
        return MissedReason.STATIC_POD
    if pod.host_network:
        return MissedReason.HOST_NETWORK
    if pod.opted_out and not cluster:
        return MissedReason.OPTED_OUT
    # Times are whole seconds: a pod made in the very second of the policy was most likely made before it.
    return MissedReason.CREATED_BEFORE if pod.created <= since else MissedReason.WEBHOOK_MISSED


def without_rules(world: World, pod: PodFacts) -> bool:
    """Whether a pod with a sidecar says that it has no rules: its sidecar does, or its init container ended for it."""
    return pod.refused or pod.uid in world.uncaptured


def missed_by_reason(tallies: Iterable[Tally]) -> dict[MissedReason, int]:
    """How many pods are not captured, each counted once, for its first reason."""
    reasons = {(one.namespace, one.name): one.reason for tally in tallies for one in tally.missed}
    counted = Counter(reasons.values())
    return {reason: counted[reason] for reason in MissedReason}


def _selected(world: World, keys: Iterable[PolicyKey]) -> Iterable[tuple[tuple[PolicyKey, ...], PodFacts]]:
    """Each pod that has not ended, with the policies that select it; none without any.

    Pods of a workload have equal labels, so selectors are asked once for all of them.
    """
    cluster = tuple(key for key in keys if key.cluster)
    own: defaultdict[str, list[PolicyKey]] = defaultdict(list)
    for key in keys:
        if key.namespace is not None:
            own[key.namespace].append(key)
    asked: dict[tuple[str, frozenset[tuple[str, str]]], tuple[PolicyKey, ...]] = {}
    for pod in world.pods:
        namespace = world.namespaces.get(pod.namespace)
        if pod.finished or namespace is None or pod.namespace in world.excluded:
            continue
        alike = (pod.namespace, frozenset(pod.labels.items()))
        if alike not in asked:
            asked[alike] = _selecting(world, (*cluster, *own[pod.namespace]), namespace, pod.labels)
        if asked[alike]:
            yield asked[alike], pod


def _selecting(
    world: World, keys: Iterable[PolicyKey], namespace: NamespaceFacts, labels: Mapping[str, str]
) -> tuple[PolicyKey, ...]:
    return tuple(key for key in keys if world.policies.selects(key, namespace, labels))
