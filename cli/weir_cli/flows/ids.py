"""Short names of flows and requests, as tables show them and as people type them.

A flow's id is `PROCESS-NUMBER`, in hex: the process is drawn by chance when a sidecar starts, the number counts its flows.
Its short name keeps the number and the beginning of the process, as git shortens commits: `3f0a-1c`. A request's is its
flow's with its own number: `3f0a-1c/2`.
"""

import msgspec

from weir_cli.flows.told import Record
from weir_sidecar.contract.flow import FlowRecord

_PROCESS = 4


class Name(msgspec.Struct, frozen=True):
    """What a person called a flow, or one of its requests. `request` None: the flow."""

    process: str
    number: str
    request: int | None

    def __str__(self) -> str:
        flow = f"{self.process}-{self.number}" if self.process else self.number
        return flow if self.request is None else f"{flow}/{self.request}"

    def means(self, flow_id: str) -> bool:
        """Whether the flow with this whole id may be meant."""
        process, _, number = flow_id.rpartition("-")
        return number == self.number and process.startswith(self.process)


def parse(text: str) -> Name | None:
    """A short or whole name; None: it is none."""
    flow, slash, request = text.partition("/")
    process, _, number = flow.rpartition("-")
    if not number or (slash and not (request.isascii() and request.isdigit())):
        return None
    return Name(process, number, int(request) if slash else None)


def short(flow_id: str) -> str:
    """The short name of a flow."""
    process, dash, number = flow_id.rpartition("-")
    return f"{process[:_PROCESS]}{dash}{number}"


def name(record: Record) -> str:
    """The short name of what the record is about."""
    return short(record.id) if isinstance(record, FlowRecord) else f"{short(record.flow)}/{record.number}"
