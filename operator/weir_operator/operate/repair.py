"""What is to be done about pods that ought to be captured and are not. Pure: the world and the time in, steps out.

Evicting a pod helps only if its successor is captured, and nobody can know before. So of each workload one pod is evicted at a
time; the next when the successor is seen to be captured, and if it is not, later and later.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from weir_operator.cluster.facts import PodFacts, Workload
from weir_operator.cluster.policies import PolicyKey
from weir_operator.operate.pods import MissedReason, Tally
from weir_operator.operate.world import World

MISSED_LABEL = "weir.dev/missed"
"""On pods that are labelled: why they are not captured, a `MissedReason`."""

SETTLED = timedelta(seconds=15)
"""How long a pod must be uncaptured before it is evicted, and captured again before that is believed: streams are cut."""
GAP = timedelta(seconds=10)
"""Between two pods of one workload, when all goes well."""
DOUBT = timedelta(minutes=1)
"""The same, where the successor is not there yet, or is no better; then twice as long for each that was no better."""
MOST_DOUBT = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)


class Mode(StrEnum):
    """What is done. In place: by the node's agent."""

    IN_PLACE = "InPlace"
    DELETE = "Delete"
    LABEL = "Label"
    NONE = "None"


class Choice(msgspec.Struct, frozen=True):
    """What the installation says."""

    modes: Mapping[MissedReason, Mode]
    """For `PLUGIN_MISSED` and `WEBHOOK_MISSED`. For pods that are missed for other reasons nobody but people can do anything."""
    bare_pods: bool = False
    """Whether pods are evicted that nothing would make anew."""
    per_minute: int = 10
    """Evictions, in the whole cluster."""

    def mode(self, reason: MissedReason) -> Mode:
        """For pods that are missed for this reason."""
        return self.modes.get(reason, Mode.NONE)

    def evicts(self, slip: "Slip") -> bool:
        """Whether this pod is to be evicted at all."""
        return self.mode(slip.reason) is Mode.DELETE and (self.bare_pods or is_owned(slip.pod))


class Slip(msgspec.Struct, frozen=True):
    """A pod that slipped through: no fault of its own, nor of the policy's."""

    pod: PodFacts
    reason: MissedReason


type Slips = Mapping[str, Slip]
"""By UID."""
type _Key = tuple[str, Workload]


def is_owned(pod: PodFacts) -> bool:
    """Whether a controller makes the pod anew when it is gone."""
    return pod.workload != Workload("Pod", pod.name)


def slips(world: World, tallies: Mapping[PolicyKey, Tally], choice: Choice) -> dict[str, Slip]:
    """The pods that slipped through, as the choice knows reasons."""
    reasons = {
        (one.namespace, one.name): one.reason
        for tally in tallies.values()
        for one in tally.missed
        if one.reason in choice.modes
    }
    found = ((pod, reasons.get((pod.namespace, pod.name))) for pod in world.pods if not pod.finished)
    return {pod.uid: Slip(pod, reason) for pod, reason in found if reason is not None}


def relabelled(pods: Iterable[PodFacts], known: Slips, choice: Choice) -> Iterator[tuple[PodFacts, str | None]]:
    """Pods whose label is not what it ought to be, and what it ought to be; None: there should be none."""
    if Mode.LABEL not in choice.modes.values():
        return
    for pod in pods:
        slip = known.get(pod.uid)
        wanted = slip.reason.value if slip is not None and choice.mode(slip.reason) is Mode.LABEL else None
        if not pod.finished and pod.labels.get(MISSED_LABEL) != wanted:
            yield pod, wanted


class Memory:
    """Which pods have slipped. A pod whose sidecar is silent for a moment is not taken to be captured."""

    def __init__(self) -> None:
        self.known: dict[str, Slip] = {}
        self._seen: dict[str, datetime] = {}

    def see(self, found: Slips, pods: Iterable[PodFacts], now: datetime) -> tuple[list[Slip], list[Slip]]:
        """Those that are new, and those that are captured now."""
        alive = {pod.uid: pod for pod in pods if not pod.finished}
        new = [slip for uid, slip in found.items() if uid not in self.known or self.known[uid].reason != slip.reason]
        self._seen |= dict.fromkeys(found, now)
        over = {uid for uid in self.known if uid not in alive or now - self._seen[uid] >= SETTLED}
        recovered = [Slip(alive[uid], self.known[uid].reason) for uid in over if uid in alive and alive[uid].captured]
        self.known = {uid: slip for uid, slip in self.known.items() if uid not in over} | dict(found)
        self._seen = {uid: self._seen[uid] for uid in self.known}
        return new, recovered


class _Turn(msgspec.Struct, frozen=True):
    """When a pod of a workload was evicted last, and how many successors before were no better."""

    at: datetime
    failures: int

    def made_since(self, pod: PodFacts) -> bool:
        """Whether a pod may be the successor. Times of pods are whole seconds."""
        return pod.created >= self.at.strftime("%Y-%m-%dT%H:%M:%SZ")


class Evictions:
    """Whose turn it is to be evicted."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._since: dict[str, datetime] = {}
        self._turns: dict[_Key, _Turn] = {}
        self._recent: deque[datetime] = deque()

    def choose(self, found: Slips, pods: Iterable[PodFacts], now: datetime) -> list[PodFacts]:
        """The pods to evict now: the youngest first, for it says whether evicting helps."""
        self._since = {uid: self._since.get(uid, now) for uid in found}
        while self._recent and now - self._recent[0] >= _MINUTE:
            self._recent.popleft()
        candidates = [slip.pod for slip in found.values() if self._choice.evicts(slip)]
        candidates = [pod for pod in candidates if now - self._since[pod.uid] >= SETTLED]
        keys = {_key(pod) for pod in candidates}
        siblings: defaultdict[_Key, list[PodFacts]] = defaultdict(list)
        for pod in pods:
            if _key(pod) in keys and not pod.finished:
                siblings[_key(pod)].append(pod)
        chosen: dict[_Key, PodFacts] = {}
        for pod in sorted(candidates, key=lambda one: one.created, reverse=True):
            key = _key(pod)
            if key not in chosen and self._is_turn(key, siblings[key], found, now):
                chosen[key] = pod
        return list(chosen.values())[: max(0, self._choice.per_minute - len(self._recent))]

    def evicted(self, pod: PodFacts, now: datetime) -> None:
        """It was; or it was not allowed now, which is to be asked again as late."""
        turn = self._turns.get(_key(pod))
        no_better = turn is not None and turn.made_since(pod)
        self._turns[_key(pod)] = _Turn(now, turn.failures + 1 if turn is not None and no_better else 0)
        self._recent.append(now)

    def _is_turn(self, key: _Key, siblings: Iterable[PodFacts], found: Slips, now: datetime) -> bool:
        turn = self._turns.get(key)
        if turn is None:
            return True
        successors = [pod for pod in siblings if turn.made_since(pod)]
        proven = [pod for pod in successors if pod.captured and pod.running]
        if not proven or any(pod.uid in found for pod in successors):
            return now - turn.at >= min(DOUBT * (1 << min(turn.failures, 10)), MOST_DOUBT)
        return now - turn.at >= GAP


def _key(pod: PodFacts) -> _Key:
    return pod.namespace, pod.workload
