"""The request record: what the sidecar tells about each HTTP request that it read, when the request has ended.

One JSON object a line, beside the flow records and told from them by `"record":"request"`, the first field.
"""

from enum import StrEnum

import msgspec


class HTTPVersion(StrEnum):
    """As which protocol a request was relayed."""

    HTTP1 = "http/1.1"
    HTTP2 = "h2"


class RequestDecision(StrEnum):
    """What was done with a request."""

    ALLOW = "allow"
    DENY = "deny"


class RequestError(StrEnum):
    """Why a request did not end as its two ends meant it to; the `error` of its record. Listed in docs/records.md."""

    ABORTED_BY_RULE = "aborted_by_rule"
    CLIENT_GONE = "client_gone"
    UPSTREAM_GONE = "upstream_gone"
    MALFORMED_REQUEST = "malformed_request"
    MALFORMED_RESPONSE = "malformed_response"
    HEAD_TOO_LARGE = "head_too_large"
    CREDENTIAL_UNREADABLE = "credential_unreadable"
    CREDENTIAL_MISDIRECTED = "credential_misdirected"
    PLACEHOLDER_MISUSED = "placeholder_misused"
    PROXY_STOPPING = "proxy_stopping"


class RequestRecord(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="record", tag="request", gc=False
):
    """One request. Times: RFC 3339 in UTC, and milliseconds. Bytes are those of the bodies, as they were sent."""

    time: str
    flow: str
    """The `id` of the flow's record, which comes when the connection ends."""
    number: int
    """HTTP/1.1: which of its connection's requests, from 1. HTTP/2: the stream's id."""
    protocol: HTTPVersion
    host: str | None
    method: str
    path: str
    """With its query, the values of which are never told: `/search?q=*`."""
    status: int | None
    """The final answer's; null where there was none."""
    request_bytes: int
    response_bytes: int
    ttfb_ms: float | None
    """From the request's first byte to the answer's."""
    duration_ms: float
    rule: str | None
    """The rule that decided: one on requests, or one on flows where the request's host is another than its flow's."""
    decision: RequestDecision
    error: RequestError | None = None


IS_REQUEST = b'{"record":"request",'
"""How the line of a request begins."""

_encoder = msgspec.json.Encoder()


def encode_request(record: RequestRecord) -> bytes:
    """The record as one line of JSON, with its newline."""
    return _encoder.encode(record) + b"\n"
