"""What the sidecar counts, and its text for Prometheus (exposition format 0.0.4).

Label values are enumerated words, never names or addresses that traffic brings: the number of series is bounded.
docs/metrics.md lists them all, and a test keeps the two in step.
"""

import os
import resource
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum

from weir_sidecar.contract.flow import Decision, FlowRecord, Protocol, Reason
from weir_sidecar.contract.request import HTTPVersion, RequestDecision, RequestRecord

DURATION_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0, 3600.0)
"""Upper bounds in seconds: from a DNS answer to a connection of an hour."""

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper bounds in seconds: from an answer out of a cache to a long poll."""

_STATUS_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
"""By the status's first digit; none: no answer came."""

_PAGE = os.sysconf("SC_PAGE_SIZE")

type Labels = tuple[tuple[str, str], ...]
type Sample = tuple[str, Labels, float]
"""What is appended to the family's name (`_bucket` and the like, or nothing), labels, value."""


class RecordSinkKind(StrEnum):
    """Where a record was lost: the file of --record, or somebody who follows and reads too slowly."""

    FILE = "file"
    FOLLOWER = "follower"


class _Histogram:
    """Counts by upper bound, and their sum. Bounds in seconds."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def samples(self) -> Iterator[Sample]:
        total = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield "_bucket", (("le", bound),), total
        yield "_sum", (), self._sum
        yield "_count", (), total


class Metrics:
    """The counters of one sidecar. Attributes are set where things happen; `render` writes them all.

    What others count is asked for when it is rendered: `trust_states`, how many entries of the trust cache are in each
    state, and `heartbeats_missed`.
    """

    def __init__(
        self,
        version: str,
        trust_states: Callable[[], Mapping[str, int]] = dict,
        heartbeats_missed: Callable[[], int] = int,
    ) -> None:
        self.config_generation = 0
        self.config_time = 0.0
        self.stream_connected = False
        self.stream_connections = 0
        self.captured = True
        self.flows_open = 0
        self.held_syns_lost = 0
        self.records_lost = dict.fromkeys(RecordSinkKind, 0)
        self._heartbeats_missed = heartbeats_missed
        self._version = version
        self._trust_states = trust_states
        self._flows: dict[tuple[Protocol, Decision, Reason], int] = {}
        self._bytes_up = 0
        self._bytes_down = 0
        self._durations = _Histogram(DURATION_BUCKETS)
        self._requests: dict[tuple[HTTPVersion, int, RequestDecision], int] = {}
        self._request_durations = _Histogram(REQUEST_BUCKETS)

    def count(self, record: FlowRecord) -> None:
        """Count a flow that has ended."""
        key = (record.protocol, record.decision, record.reason)
        self._flows[key] = self._flows.get(key, 0) + 1
        self._bytes_up += record.bytes_up
        self._bytes_down += record.bytes_down
        self._durations.add(record.duration_ms / 1000)

    def count_request(self, record: RequestRecord) -> None:
        """Count an HTTP request that has ended."""
        key = (record.protocol, (record.status or 0) // 100, record.decision)
        self._requests[key] = self._requests.get(key, 0) + 1
        self._request_durations.add(record.duration_ms / 1000)

    def flows_by_decision(self) -> dict[str, int]:
        """How many flows have ended, by what was decided about them."""
        counts = dict.fromkeys((decision.value for decision in Decision), 0)
        for (_, decision, _), count in self._flows.items():
            counts[decision.value] += count
        return counts

    @property
    def heartbeats_missed(self) -> int:
        """Heartbeats that the kernel refused."""
        return self._heartbeats_missed()

    def render(self) -> bytes:
        """All metrics as text."""
        lines: list[str] = []
        for name, kind, text, samples in self._families():
            lines += (f"# HELP {name} {text}", f"# TYPE {name} {kind}")
            lines += (f"{name}{suffix}{_label_text(labels)} {_number(value)}" for suffix, labels, value in samples)
        lines.append("")
        return "\n".join(lines).encode()

    def _families(self) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
        """Name, type, help and samples of each metric."""
        flows = [
            ("", (("protocol", protocol), ("decision", decision), ("reason", reason)), count)
            for (protocol, decision, reason), count in sorted(self._flows.items())
        ]
        directions: list[Sample] = [
            ("", (("direction", "up"),), self._bytes_up),
            ("", (("direction", "down"),), self._bytes_down),
        ]
        trust = [("", (("state", str(state)),), count) for state, count in sorted(self._trust_states().items())]
        lost = [("", (("sink", kind),), count) for kind, count in self.records_lost.items()]
        captured = _one(int(self.captured))
        yield "weir_captured", "gauge", "0 while the pod has no rules, and its flows go direct.", captured
        yield "weir_flows_total", "counter", "Flows that have ended.", flows
        yield "weir_flow_bytes_total", "counter", "Bytes of flows that have ended: up from the client.", directions
        yield "weir_flow_duration_seconds", "histogram", "How long flows lasted.", self._durations.samples()
        requests = [
            ("", (("protocol", protocol), ("status", _STATUS_CLASSES[status]), ("decision", decision)), count)
            for (protocol, status, decision), count in sorted(self._requests.items())
        ]
        yield "weir_requests_total", "counter", "HTTP requests that have ended.", requests
        durations = self._request_durations.samples()
        yield "weir_request_duration_seconds", "histogram", "How long HTTP requests lasted.", durations
        yield "weir_flows_open", "gauge", "Flows that have not ended.", _one(self.flows_open)
        yield "weir_trust_entries", "gauge", "Entries of the trust cache.", trust
        yield "weir_records_lost_total", "counter", "Flow records that could not be delivered.", lost
        yield (
            "weir_heartbeats_missed_total",
            "counter",
            "Heartbeats the kernel refused.",
            _one(self._heartbeats_missed()),
        )
        held = _one(self.held_syns_lost)
        yield "weir_held_syns_lost_total", "counter", "Connections' first packets that found no room.", held
        yield "weir_config_generation", "gauge", "Generation of the config in force.", _one(self.config_generation)
        yield "weir_config_timestamp_seconds", "gauge", "When the config in force was taken.", _one(self.config_time)
        yield "weir_stream_connected", "gauge", "1 while the config stream is open.", _one(int(self.stream_connected))
        connections = _one(self.stream_connections)
        yield "weir_stream_connections_total", "counter", "Times the config stream was opened.", connections
        yield (
            "weir_build_info",
            "gauge",
            "Always 1; the version is a label.",
            [
                ("", (("version", self._version),), 1),
            ],
        )
        yield from _process_families()


def _process_families() -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    """The standard process metrics; proc_pid_statm(5), getrusage(2)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - pathlib stays out of the sidecar
        size, resident = map(int, file.read().split()[:2])
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as above
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    cpu = usage.ru_utime + usage.ru_stime
    yield "process_cpu_seconds_total", "counter", "CPU time, user and system.", _one(cpu)
    yield "process_resident_memory_bytes", "gauge", "Memory that is in RAM.", _one(resident * _PAGE)
    yield "process_virtual_memory_bytes", "gauge", "Memory that is mapped.", _one(size * _PAGE)
    yield "process_open_fds", "gauge", "Open file descriptors.", _one(files)
    yield "process_max_fds", "gauge", "How many there may be.", _one(limit)


def _one(value: float) -> list[Sample]:
    return [("", (), value)]


def _label_text(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(value)
