"""The capture record: what the sidecar tells when it finds that its pod is not captured, and when it is again.

One JSON object a line, beside the records of flows and requests and told from them by `"record":"capture"`, the first field.
While a pod is not captured its flows go direct and have no records: this one says since when, and why.
"""

from enum import StrEnum

import msgspec


class CaptureReason(StrEnum):
    """Why the state of capture is what it is. Listed in docs/records.md."""

    PLUGIN_MISSED = "plugin_missed"
    """The pod started while the CNI plugin was away, so it never had rules."""
    RULES_LOST = "rules_lost"
    """It had rules, and something took them away."""
    REPAIRED = "repaired"
    """They are there again, or at last."""


class CaptureRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="record", tag="capture"):
    """A change of state. Time: RFC 3339 in UTC."""

    time: str
    captured: bool
    reason: CaptureReason


_encoder = msgspec.json.Encoder()


def encode_capture(record: CaptureRecord) -> bytes:
    """The record as one line of JSON, with its newline."""
    return _encoder.encode(record) + b"\n"
