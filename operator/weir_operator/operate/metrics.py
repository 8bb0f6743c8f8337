"""What the operator measures, in the Prometheus text format. docs/operations.md lists all of it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum

from weir_operator.cluster.policies import PolicyKey
from weir_operator.operate.pods import MissedReason, Tally, missed_by_reason
from weir_operator.operate.statuses import Status
from weir_operator.operate.world import EXCEPTION, World
from weir_sidecar.contract.trust import State


class Repair(StrEnum):
    """What became of a pod that slipped through."""

    CAPTURED = "captured"
    EVICTED = "evicted"
    BLOCKED = "blocked"
    LABELLED = "labelled"
    UNLABELLED = "unlabelled"


type Sample = tuple[dict[str, str], float]


class Metrics:
    """Counters since the start, and gauges as of the last run."""

    def __init__(self) -> None:
        self._runs = 0
        self._seconds = 0.0
        self._errors = 0
        self._writes: Counter[str] = Counter()
        self._captured = 0
        self._missed: Mapping[MissedReason, int] = dict.fromkeys(MissedReason, 0)
        self._policies: Counter[tuple[str, str, str]] = Counter()
        self._exceptions: Counter[str] = Counter()
        self._expiries: Mapping[str, float] = {}
        self.certificate_errors = 0
        self.repairs: dict[Repair, int] = dict.fromkeys(Repair, 0)

    def reconciled(self, seconds: float, failed: int) -> None:
        """A run took so long, and so many of its writes failed."""
        self._runs += 1
        self._seconds += seconds
        self._errors += failed

    def wrote(self, kind: str) -> None:
        """A status of an object of this kind was written."""
        self._writes[kind] += 1

    def observe(self, world: World, tallies: Mapping[PolicyKey, Tally], wanted: Mapping[PolicyKey, Status]) -> None:
        """The world as the last run saw it."""
        self._captured = sum(pod.captured and not pod.finished for pod in world.pods)
        self._missed = missed_by_reason(tallies.values())
        self._policies = Counter(
            (key.kind, condition["type"], condition["status"])
            for key, status in wanted.items()
            if key.kind != EXCEPTION
            for condition in status["conditions"]
        )
        self._exceptions = Counter(
            str((obj.get("status") or {}).get("state") or State.UNKNOWN).lower()
            for key, obj in world.objects.items()
            if key.kind == EXCEPTION
        )

    def certificates(self, expiries: Mapping[str, float]) -> None:
        """When certificates end, by what they are for; seconds since the epoch."""
        self._expiries = expiries

    @property
    def ran(self) -> bool:
        """Whether there was a run."""
        return self._runs > 0

    def text(self) -> str:
        """All of it."""
        lines: list[str] = []
        for name, kind, about, samples in self._families():
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_labels(labels)} {value:.15g}" for labels, value in samples]
        return "\n".join(lines) + "\n"

    def _families(self) -> Iterable[tuple[str, str, str, list[Sample]]]:
        yield "weir_pods_captured", "gauge", "Pods with a sidecar.", [({}, self._captured)]
        missed: list[Sample] = [({"reason": reason.value}, count) for reason, count in self._missed.items()]
        yield "weir_pods_missed", "gauge", "Pods that a policy selects and that are not captured, by reason.", missed
        repairs: list[Sample] = [({"result": result.value}, count) for result, count in self.repairs.items()]
        yield "weir_pod_repairs_total", "counter", "What became of pods that slipped through, by result.", repairs
        policies: list[Sample] = [
            ({"kind": kind, "condition": condition, "status": status}, count)
            for (kind, condition, status), count in sorted(self._policies.items())
        ]
        yield "weir_policies", "gauge", "Policies, by a condition and its status.", policies
        exceptions: list[Sample] = [({"state": state}, count) for state, count in sorted(self._exceptions.items())]
        yield "weir_trust_exceptions", "gauge", "TrustExceptions, by state.", exceptions
        ends: list[Sample] = [({"certificate": what}, end) for what, end in self._expiries.items()]
        yield "weir_certificate_expiry_seconds", "gauge", "When a certificate ends, seconds since the epoch.", ends
        errors: list[Sample] = [({}, self.certificate_errors)]
        yield "weir_certificate_errors_total", "counter", "Failed attempts to keep certificates.", errors
        yield "weir_reconcile_seconds_sum", "counter", "Time spent in runs.", [({}, self._seconds)]
        yield "weir_reconcile_seconds_count", "counter", "Runs.", [({}, self._runs)]
        yield "weir_reconcile_errors_total", "counter", "Writes that failed.", [({}, self._errors)]
        writes: list[Sample] = [({"kind": kind}, count) for kind, count in sorted(self._writes.items())]
        yield "weir_status_writes_total", "counter", "Statuses written, by kind.", writes


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""
