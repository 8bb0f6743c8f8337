"""What the agent's processes count, in memory that they share: each adds to a row of its own, and a reader sums up.

So nobody waits for anybody, and what a process counted before it died stays. The text is Prometheus's (0.0.4), of metrics
that docs/metrics.md lists.
"""

import mmap
from bisect import bisect_left
from collections.abc import Iterator
from enum import StrEnum
from itertools import accumulate, product

import msgspec

from weir_sidecar.node.cni import Code, Command

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper bounds in seconds: from a request that finds nothing to do to the plugin's own patience."""


class Phase(StrEnum):
    """What a pod that is captured waits for, one after another."""

    QUEUE = "queue"
    """From when the plugin started until the agent took the request up."""
    POD = "pod"
    """The API server's answer."""
    RULES = "rules"
    """The rest: rules and routes in the pod's network namespace are loaded, looked at, and noted."""


class Answered(msgspec.Struct, frozen=True):
    """A request that has been. Times in seconds."""

    command: Command
    error: Code | None
    seconds: float
    """From when the plugin started."""
    phases: dict[Phase, float]
    """Empty: no pod was captured."""


_SUM = len(BUCKETS) + 1
_HISTOGRAMS = {name: place * (_SUM + 1) for place, name in enumerate((*Command, *Phase))}
"""Where each begins in a row: a count for each bucket and one for what is beyond, then the sum."""
_ERRORS = {pair: len(_HISTOGRAMS) * (_SUM + 1) + place for place, pair in enumerate(product(Command, Code))}
_PODS = len(_HISTOGRAMS) * (_SUM + 1) + len(_ERRORS)
_TURNED = _PODS + 1
_CELLS = _TURNED + 1
_CELL_BYTES = 8


class Counters:
    """For the agent, which has row 0, and so many workers."""

    def __init__(self, workers: int) -> None:
        memory = memoryview(mmap.mmap(-1, (1 + workers) * _CELLS * _CELL_BYTES)).cast("d")
        self._rows = [memory[row * _CELLS : (row + 1) * _CELLS] for row in range(1 + workers)]

    def count(self, worker: int, request: Answered) -> None:
        """Of a worker, from 0 on."""
        row = self._rows[1 + worker]
        _add(row, request.command, request.seconds)
        for phase, seconds in request.phases.items():
            _add(row, phase, seconds)
        if request.error is not None:
            row[_ERRORS[request.command, request.error]] += 1

    def turn(self, now: float, pods: int) -> None:
        """The agent's loop goes round, at a time by the monotonic clock, and holds so many captured pods."""
        self._rows[0][_TURNED], self._rows[0][_PODS] = now, pods

    @property
    def turned(self) -> float:
        """When the agent's loop went round for the last time; 0: never."""
        return self._rows[0][_TURNED]

    def render(self) -> bytes:
        """All metrics as text."""
        sums = [sum(cells) for cells in zip(*self._rows, strict=True)]
        return "\n".join(_families(sums)).encode() + b"\n"


def _add(row: "memoryview[float]", histogram: Command | Phase, seconds: float) -> None:
    start = _HISTOGRAMS[histogram]
    row[start + bisect_left(BUCKETS, seconds)] += 1
    row[start + _SUM] += seconds


def _families(sums: list[float]) -> Iterator[str]:
    yield from _head("weir_cni_request_seconds", "histogram", "From the plugin's start to the agent's answer.")
    for command in Command:
        yield from _histogram("weir_cni_request_seconds", f'command="{command}"', sums, _HISTOGRAMS[command])
    yield from _head("weir_cni_phase_seconds", "histogram", "What the ADD of a captured pod waited for.")
    for phase in Phase:
        yield from _histogram("weir_cni_phase_seconds", f'phase="{phase}"', sums, _HISTOGRAMS[phase])
    yield from _head("weir_cni_errors_total", "counter", "Requests that were answered by an error, by CNI's number.")
    for (command, code), place in _ERRORS.items():
        if sums[place]:
            yield f'weir_cni_errors_total{{command="{command}",code="{code:d}"}} {sums[place]:.0f}'
    yield from _head("weir_node_pods", "gauge", "Captured pods of this node.")
    yield f"weir_node_pods {sums[_PODS]:.0f}"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _histogram(name: str, label: str, sums: list[float], start: int) -> Iterator[str]:
    counts = accumulate(sums[start : start + _SUM])
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
        yield f'{name}_bucket{{{label},le="{bound}"}} {count:.0f}'
    yield f"{name}_sum{{{label}}} {sums[start + _SUM]}"
    yield f"{name}_count{{{label}}} {sum(sums[start : start + _SUM]):.0f}"
