"""What the operator knows of the cluster, as one value. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from weir_operator.cluster.facts import NamespaceFacts, PodFacts
from weir_operator.cluster.policies import Policies, PolicyKey
from weir_operator.models import GROUP, PLURALS

type Object = Mapping[str, Any]
"""An API object, as JSON has it."""

EXCEPTION = "TrustException"
INTERCEPTION_KINDS = ("InterceptionPolicy", "ClusterInterceptionPolicy")
TRUST_KINDS = ("TrustPolicy", "ClusterTrustPolicy")


class World(msgspec.Struct, frozen=True):
    """The cluster at one moment. `current`: how many sidecars of each policy said that they run what it now comes to.

    `uncaptured`: the UIDs of pods whose sidecars said that they find no rules.
    Pods in `excluded` namespaces are never offered to the webhook: they count nowhere.
    """

    policies: Policies
    objects: Mapping[PolicyKey, Object]
    """Policies and TrustExceptions."""
    namespaces: Mapping[str, NamespaceFacts]
    pods: tuple[PodFacts, ...]
    current: Mapping[str, int]
    """By `str(PolicyKey)`."""
    excluded: frozenset[str]
    uncaptured: frozenset[str] = frozenset()
    waits: Mapping[str, tuple[str, ...]] = {}
    """By `str(PolicyKey)`: what counts only when pods of it start anew, where anything does."""


def key_of(obj: Object) -> PolicyKey:
    """What an object of these kinds is called."""
    metadata = obj["metadata"]
    return PolicyKey(obj["kind"], metadata.get("namespace"), metadata["name"])


def version_of(obj: Object) -> int:
    """An object's resourceVersion, as a number: of two states of an object the greater is the later (KEP-5504)."""
    return int(obj["metadata"]["resourceVersion"])


def path_of(key: PolicyKey) -> str:
    """Where the API server has an object."""
    place = f"namespaces/{key.namespace}/" if key.namespace else ""
    return f"{GROUP}/{place}{PLURALS[key.kind]}/{key.name}"


def changed_at(obj: Object) -> str:
    """When the spec was last written, RFC 3339; when the object was made, where the server does not tell.

    Source: metadata.managedFields, whose entries have a time each; those of subresources are not about the spec.
    """
    metadata = obj["metadata"]
    written: list[str] = [
        entry["time"]
        for entry in metadata.get("managedFields") or ()
        if not entry.get("subresource") and "f:spec" in entry.get("fieldsV1", {}) and "time" in entry
    ]
    made: str = metadata.get("creationTimestamp") or ""
    return max(made, *written) if written else made


class Told(msgspec.Struct, frozen=True):
    """What the serving replicas told of the sidecars that are connected to them."""

    current: Mapping[str, int]
    uncaptured: frozenset[str]
    waits: Mapping[str, tuple[str, ...]]


def told(summaries: Iterable[Object]) -> Told:
    """All of the summaries that the serving replicas keep in ConfigMaps.

    A summary that cannot be read counts as none: its replica writes it anew.
    """
    current: dict[str, int] = {}
    uncaptured: set[str] = set()
    waits: dict[str, set[str]] = {}
    for summary in summaries:
        try:
            one = msgspec.json.decode((summary.get("data") or {}).get("summary", "{}"), type=_Summary)
        except msgspec.MsgspecError:
            continue
        for key, count in one.policies.items():
            current[key] = current.get(key, 0) + count.current
        for key, names in one.waits.items():
            waits.setdefault(key, set()).update(names)
        uncaptured.update(one.uncaptured)
    return Told(current, frozenset(uncaptured), {key: tuple(sorted(names)) for key, names in waits.items()})


class _Count(msgspec.Struct, frozen=True):
    connected: int = 0
    current: int = 0


class _Summary(msgspec.Struct, frozen=True):
    policies: dict[str, _Count] = {}
    waits: dict[str, tuple[str, ...]] = {}
    uncaptured: tuple[str, ...] = ()
