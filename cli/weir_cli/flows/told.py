"""A line of a record file or log, read."""

import msgspec

from weir_cli.cluster.records import Line
from weir_sidecar.contract.capture import CaptureRecord
from weir_sidecar.contract.flow import FlowRecord
from weir_sidecar.contract.request import IS_REQUEST, RequestRecord

type Record = FlowRecord | RequestRecord

_flow_decoder = msgspec.json.Decoder(FlowRecord)
_request_decoder = msgspec.json.Decoder(RequestRecord)
_capture_decoder = msgspec.json.Decoder(CaptureRecord)
_IS_CAPTURE = b'{"record":"capture",'


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


def capture_told(line: Line) -> str | None:
    """What a line says of its pod's capture, for a person; None: it is about something else."""
    if not line.record.startswith(_IS_CAPTURE):
        return None
    try:
        record = _capture_decoder.decode(line.record)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    state = "is captured" if record.captured else "is not captured, and its flows have no records"
    return f"from {record.time} on {line.pod or 'the pod'} {state}: {record.reason}"
