"""Carries out what `repair` decides, and tells people: an event on each pod that slipped through, and when it is captured."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from weir_operator.cluster.facts import PodFacts
from weir_operator.cluster.policies import PolicyKey
from weir_operator.kube.client import Client, Patch
from weir_operator.kube.errors import ApiError, Reason
from weir_operator.operate.metrics import Metrics, Repair
from weir_operator.operate.pods import MissedReason, Tally
from weir_operator.operate.repair import (
    MISSED_LABEL,
    Choice,
    Evictions,
    Memory,
    Mode,
    Slip,
    is_owned,
    relabelled,
    slips,
)
from weir_operator.operate.world import World

_log = logging.getLogger(__name__)

AGAIN_SECONDS = 5.0
"""While there are pods that slipped through: time alone may make it their turn."""
MOST_AT_ONCE = 50
"""Events, and labels, of one run; the others are next."""
_MANAGER = {"fieldManager": "weir-operator"}
_GONE = frozenset({Reason.NOT_FOUND, Reason.CONFLICT})
"""It has ended meanwhile, or it is another pod of the same name: there is nothing to do."""


class EventReason(StrEnum):
    """Why an event is told; docs/operations.md lists them."""

    NOT_CAPTURED = "NotCaptured"
    CAPTURED = "CapturedAtLast"
    EVICTED = "EvictedToCapture"
    EVICTION_BLOCKED = "EvictionBlocked"


_WHAT = {
    MissedReason.PLUGIN_MISSED: "The pod has Weir's sidecar and no rules, so its flows are not captured: the CNI plugin was away"
    " when it started, or something has removed its rules.",
    MissedReason.WEBHOOK_MISSED: "A policy selects the pod, and it has no sidecar, so its flows are not captured: Weir's webhook"
    " was not reached when it was created, or its labels were others then.",
}


def next_step(slip: Slip, choice: Choice) -> str:
    """What will be done, or has to be done, in words."""
    match choice.mode(slip.reason):
        case Mode.IN_PLACE:
            return "The agent of its node repairs it in place."
        case Mode.DELETE if choice.evicts(slip):
            return "It is evicted, so that its owner makes another one."
        case Mode.DELETE:
            return "Nothing owns it, so it is not evicted: make it anew."
    return "Make it anew."


class Repairer:
    """One for the whole cluster. `again` is called when there is something to be looked at without any change."""

    def __init__(
        self,
        client: Client,
        choice: Choice,
        clock: Callable[[], datetime],
        metrics: Metrics,
        again: Callable[[], None],
    ) -> None:
        self._client = client
        self._choice = choice
        self._clock = clock
        self._metrics = metrics
        self._again = again
        self._memory = Memory()
        self._evictions = Evictions(choice)
        self._untold: list[tuple[Slip, EventReason, str]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, world: World, tallies: Mapping[PolicyKey, Tally]) -> int:
        """One run; how many writes failed."""
        now = self._clock()
        found = slips(world, tallies, self._choice)
        new, recovered = self._memory.see(found, world.pods, now)
        for slip in new:
            self._tell(slip, EventReason.NOT_CAPTURED, f"{_WHAT[slip.reason]} {next_step(slip, self._choice)}")
        for slip in recovered:
            self._metrics.repairs[Repair.CAPTURED] += 1
            self._tell(slip, EventReason.CAPTURED, "The pod's flows are captured now.")
        writes = [
            self._attempt(self._label(pod, wanted), pod)
            for pod, wanted in list(relabelled(world.pods, self._memory.known, self._choice))[:MOST_AT_ONCE]
        ]
        writes += [
            self._attempt(self._evict(found[pod.uid], now), pod)
            for pod in self._evictions.choose(found, world.pods, now)
        ]
        failed = sum(await asyncio.gather(*writes)) + await self._tell_all(now)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._again) if self._memory.known else None
        return failed

    async def _label(self, pod: PodFacts, wanted: str | None) -> None:
        # With the UID a pod of the same name that came after is left alone: the server says Conflict.
        patch = {"metadata": {"uid": pod.uid, "labels": {MISSED_LABEL: wanted}}}
        await self._client.patch(_path(pod), patch, Patch.MERGE, _MANAGER)
        self._metrics.repairs[Repair.LABELLED if wanted else Repair.UNLABELLED] += 1

    async def _evict(self, slip: Slip, now: datetime) -> None:
        pod = slip.pod
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": pod.namespace, "name": pod.name},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        self._evictions.evicted(pod, now)
        try:
            await self._client.create(f"{_path(pod)}/eviction", eviction)
        except ApiError as error:
            if error.reason is not Reason.TOO_MANY_REQUESTS:
                raise
            self._metrics.repairs[Repair.BLOCKED] += 1
            self._tell(slip, EventReason.EVICTION_BLOCKED, f"It is tried again later: {error.message}")
        else:
            _log.info("evicted pod %s/%s: %s", pod.namespace, pod.name, slip.reason)
            self._metrics.repairs[Repair.EVICTED] += 1
            why = "made anew by its owner" if is_owned(pod) else "gone; nothing makes it anew"
            self._tell(slip, EventReason.EVICTED, f"It was not captured ({slip.reason}); it is {why}.")

    def _tell(self, slip: Slip, reason: EventReason, note: str) -> None:
        self._untold.append((slip, reason, note))

    async def _tell_all(self, now: datetime) -> int:
        told, self._untold = self._untold[:MOST_AT_ONCE], self._untold[MOST_AT_ONCE:]
        return sum([await self._attempt(self._post(*one, now), one[0].pod) for one in told])

    async def _post(self, slip: Slip, reason: EventReason, note: str, now: datetime) -> None:
        pod = slip.pod
        path = f"/apis/events.k8s.io/v1/namespaces/{pod.namespace}/events"
        try:
            await self._client.create(path, event(pod, reason, note, now))
        except ApiError as error:
            if error.reason is not Reason.ALREADY_EXISTS:  # else it was told today, maybe by the operator before us
                raise

    async def _attempt(self, write: Awaitable[None], pod: PodFacts) -> int:
        """Write; 1 if it failed."""
        try:
            await write
        except ApiError as error:
            if error.reason in _GONE:
                return 0
            _log.warning("cannot repair pod %s/%s, or tell of it: %s", pod.namespace, pod.name, error)
            return 1
        return 0


def event(pod: PodFacts, reason: EventReason, note: str, now: datetime) -> dict[str, Any]:
    """An event (events.k8s.io/v1) about a pod. The same one has the same name for a day."""
    known_by = hashlib.sha256(f"{pod.uid} {reason} {now:%Y-%m-%d}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": pod.namespace, "name": f"{pod.name[:200]}.{known_by}"},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "weir.dev/operator",
        "reportingInstance": "weir-operator",
        "action": "Capture",
        "reason": reason.value,
        "type": "Normal" if reason in (EventReason.CAPTURED, EventReason.EVICTED) else "Warning",
        "note": note[:1024],
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        },
    }


def _path(pod: PodFacts) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
