"""A line of a record file or log, read."""

import msgspec

from weir_cli.cluster.records import Line
from weir_sidecar.contract.flow import FlowRecord
from weir_sidecar.contract.request import IS_REQUEST, RequestRecord

type Record = FlowRecord | RequestRecord

_flow_decoder = msgspec.json.Decoder(FlowRecord)
_request_decoder = msgspec.json.Decoder(RequestRecord)


class Told(msgspec.Struct, frozen=True):
    """A record, and the line that it was read from. `flow`: of a request, its flow's record, where that is known."""

    line: Line
    record: Record
    flow: FlowRecord | None = None

    @property
    def of(self) -> FlowRecord | None:
        """The record of the flow that this is about."""
        return self.record if isinstance(self.record, FlowRecord) else self.flow

    @property
    def flow_id(self) -> str:
        """The whole id of the flow that this is about."""
        return self.record.id if isinstance(self.record, FlowRecord) else self.record.flow


class Unreadable(msgspec.Struct, frozen=True):
    """A line that is no record, and why."""

    line: Line
    why: str


def read(line: Line) -> Told | Unreadable:
    """The record that the line holds."""
    decoder: msgspec.json.Decoder[FlowRecord] | msgspec.json.Decoder[RequestRecord] = _flow_decoder
    if line.record.startswith(IS_REQUEST):
        decoder = _request_decoder
    try:
        return Told(line, decoder.decode(line.record))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Unreadable(line, str(error))
