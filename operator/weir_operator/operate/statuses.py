"""What every status ought to be. Pure: the world and the time in, statuses out; who writes them compares first."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from weir_operator import grammar
from weir_operator.cluster.policies import PolicyKey
from weir_operator.operate.pods import Tally
from weir_operator.operate.world import EXCEPTION, INTERCEPTION_KINDS, TRUST_KINDS, Object, World

MAX_LISTED = 10
MAX_MESSAGE = 1024

type Status = dict[str, Any]
"""The part of an object's status that is the operator's."""


class Condition(msgspec.Struct, frozen=True):
    """A condition (metav1.Condition), but for its times and generation."""

    type: str
    holds: bool
    reason: str
    message: str


def statuses(world: World, tallies: Mapping[PolicyKey, Tally], now: datetime) -> dict[PolicyKey, Status]:
    """The status that each policy and TrustException ought to have."""
    users = _users(world)
    wanted: dict[PolicyKey, Status] = {}
    for key, obj in world.objects.items():
        generation = {"observedGeneration": obj["metadata"].get("generation", 0)}
        if key.kind in INTERCEPTION_KINDS:
            pods = tallies.get(key, Tally())
            current = min(world.current.get(str(key), 0), pods.captured)
            conditions = _interception(world, key, obj, pods, current)
            wanted[key] = generation | {"conditions": _timed(conditions, obj, now)} | _pods(pods, current)
        elif key.kind in TRUST_KINDS:
            policies = users.get(key, ())
            wanted[key] = generation | {
                "conditions": _timed((_accepted(world, key),), obj, now),
                "references": len(policies),
                "referredBy": list(policies[:MAX_LISTED]),
            }
        elif key.kind == EXCEPTION:
            wanted[key] = generation | {"conditions": _timed(_exception(obj), obj, now)}
    return wanted


def differs(obj: Object, wanted: Status) -> bool:
    """Whether an object's status is not what it ought to be."""
    found = obj.get("status") or {}
    return any(found.get(field) != value for field, value in wanted.items())


def _interception(
    world: World, key: PolicyKey, obj: Object, pods: Tally, current: int
) -> tuple[Condition, Condition, Condition]:
    accepted = _accepted(world, key)
    ran = f"{current} of {pods.captured} captured pods run generation {obj['metadata'].get('generation', 0)}"
    if not accepted.holds and not pods.selected:
        programmed = Condition("Programmed", False, "NotAccepted", "the policy is not used: see Accepted")
    elif not pods.captured:
        programmed = Condition("Programmed", True, "NoPods", "the policy selects no captured pod")
    elif current < pods.captured and (waits := world.waits.get(str(key))):
        text = f"{ran}; to be started anew for: {', '.join(waits)}"
        programmed = Condition("Programmed", False, "PodsNeedRestart", text)
    elif current < pods.captured:
        programmed = Condition("Programmed", False, "Updating", ran)
    else:
        programmed = Condition("Programmed", True, "UpToDate", ran)
    if not pods.missed:
        degraded = Condition("Degraded", False, "NoneMissed", "all selected pods are captured")
    else:
        reasons = Counter(one.reason for one in pods.missed)
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        text = f"{len(pods.missed)} of {pods.selected} selected pods are not captured: {told}"
        degraded = Condition("Degraded", True, "PodsMissed", text)
    return accepted, programmed, degraded


def _accepted(world: World, key: PolicyKey) -> Condition:
    problems = world.policies.problems.get(key)
    if problems:
        return Condition("Accepted", False, "Invalid", "; ".join(problems))
    return Condition("Accepted", True, "Valid", "; ".join(world.policies.notices.get(key) or ("the policy is used",)))


def _pods(pods: Tally, current: int) -> Status:
    return {
        "pods": {
            "selected": pods.selected,
            "captured": pods.captured,
            "current": current,
            "missed": len(pods.missed),
        },
        "missed": [
            {"namespace": one.namespace, "name": one.name, "reason": one.reason.value}
            for one in pods.missed[:MAX_LISTED]
        ],
    }


def _users(world: World) -> dict[PolicyKey, tuple[str, ...]]:
    """The policies that refer to each trust policy, in order of their names."""
    users: dict[PolicyKey, list[str]] = {}
    for key, obj in world.objects.items():
        ref = (obj.get("spec") or {}).get("trustPolicyRef") if key.kind in INTERCEPTION_KINDS else None
        if isinstance(ref, Mapping):
            kind = ref.get("kind", TRUST_KINDS[0])
            namespace = key.namespace if kind == TRUST_KINDS[0] else None
            users.setdefault(PolicyKey(kind, namespace, str(ref.get("name"))), []).append(str(key))
    return {key: tuple(sorted(names)) for key, names in users.items()}


def _exception(obj: Object) -> tuple[Condition, Condition]:
    spec = obj.get("spec") or {}
    host, decision = str(spec.get("host", "")), spec.get("decision", "Auto")
    try:
        grammar.subject_host(host)
    except grammar.UnreadableError as error:
        accepted = Condition("Accepted", False, "Invalid", f"spec.host: found {host!r}; allowed: {error}")
    else:
        accepted = Condition("Accepted", True, "Valid", "the exception is used")
    if decision == "Auto":
        return accepted, Condition("Decided", False, "Auto", "nobody has decided: what sidecars see counts")
    return accepted, Condition("Decided", True, decision, f"a person decided: {decision}")


def _timed(conditions: Iterable[Condition], obj: Object, now: datetime) -> list[dict[str, Any]]:
    """Conditions as the API has them. The time of transition moves only when the status of a condition does."""
    found = {one.get("type"): one for one in (obj.get("status") or {}).get("conditions") or ()}
    generation = obj["metadata"].get("generation", 0)
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    timed = []
    for one in conditions:
        before, status = found.get(one.type, {}), str(one.holds)
        same = before.get("status") == status and before.get("lastTransitionTime")
        timed.append(
            {
                "type": one.type,
                "status": status,
                "observedGeneration": generation,
                "lastTransitionTime": before["lastTransitionTime"] if same else stamp,
                "reason": one.reason,
                "message": one.message[:MAX_MESSAGE],
            }
        )
    return timed
