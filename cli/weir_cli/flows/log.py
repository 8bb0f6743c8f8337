"""The last records, as many as may be kept, and those among them that a filter lets through, in the order in which they came."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice

import msgspec

from weir_cli.flows.filters import Filter
from weir_cli.flows.told import Told
from weir_sidecar.contract.flow import FlowRecord

MOST = 10_000
MOST_BYTES = 64 << 20
"""Of the lines of all that are kept: one with bodies in it can be long."""


class _Flow(msgspec.Struct):
    """What was told of one flow. `record` None: it is open."""

    record: FlowRecord | None = None
    serials: list[int] = msgspec.field(default_factory=list)


class Log:
    """Takes records, numbers them, and forgets the oldest. `shown`: the numbers of those that the filter lets through."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._next = 0
        self._told: dict[int, Told] = {}
        self._flows: dict[str, _Flow] = {}
        self._filter = Filter()
        self._shown: list[int] = []

    def __len__(self) -> int:
        return len(self._told)

    def __getitem__(self, serial: int) -> Told:
        return self._told[serial]

    @property
    def shown(self) -> Sequence[int]:
        """In ascending order."""
        return self._shown

    def add(self, told: Told) -> None:
        """Take a record. A flow's record is known to the requests of the flow from then on."""
        flow = self._flows.setdefault(told.flow_id, _Flow())
        if isinstance(told.record, FlowRecord):
            flow.record = told.record
            for serial in flow.serials:
                self._told[serial] = msgspec.structs.replace(self._told[serial], flow=told.record)
                self._judge(serial)
        else:
            told = msgspec.structs.replace(told, flow=flow.record)
        flow.serials.append(self._next)
        self._told[self._next] = told
        self._judge(self._next)
        self._next += 1
        self._bytes += len(told.line.record)
        while len(self._told) > self._most or (self._bytes > self._most_bytes and len(self._told) > 1):
            self._forget()

    def choose(self, wanted: Filter) -> None:
        """Let through what this filter says, and nothing else."""
        self._filter = wanted
        self._shown = [serial for serial, told in self._told.items() if wanted.matches(told)]

    def requests(self, flow_id: str) -> list[Told]:
        """The requests of a flow that are kept."""
        flow = self._flows.get(flow_id, _Flow())
        told = (self._told[serial] for serial in flow.serials)
        return [one for one in told if not isinstance(one.record, FlowRecord)]

    def index(self, serial: int) -> int:
        """Where a record is among those shown, or would be."""
        return bisect_left(self._shown, serial)

    def _judge(self, serial: int) -> None:
        wanted = self._filter.matches(self._told[serial])
        index = self.index(serial)
        there = index < len(self._shown) and self._shown[index] == serial
        if wanted and not there:
            self._shown.insert(index, serial)
        elif there and not wanted:
            del self._shown[index]

    def _forget(self) -> None:
        (serial,) = islice(self._told, 1)
        told = self._told.pop(serial)
        self._bytes -= len(told.line.record)
        flow = self._flows[told.flow_id]
        flow.serials.remove(serial)
        if not flow.serials:
            del self._flows[told.flow_id]
        if self._shown and self._shown[0] == serial:
            del self._shown[0]
