"""The request record: what the sidecar tells about each HTTP request that it read, when the request has ended.

One JSON object a line, beside the flow records and told from them by `"record":"request"`, the first field. What a
policy has to ask for (`contract.http.RequestLog`) is left out where none does.
"""

from enum import StrEnum

import msgspec
from msgspec import UNSET, UnsetType

REDACTED = "*"
"""What stands for a value that is not told: of a header field, and of a query's parameter."""


class HTTPVersion(StrEnum):
    """As which protocol a request was relayed."""

    HTTP1 = "http/1.1"
    HTTP2 = "h2"


class Scheme(StrEnum):
    """The scheme of a request's URL: whether it came over TLS."""

    HTTP = "http"
    HTTPS = "https"


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
    CREDENTIAL_MISSING = "credential_missing"
    CREDENTIAL_UNREADABLE = "credential_unreadable"
    CREDENTIAL_HOST_NOT_NAMED = "credential_host_not_named"
    CREDENTIAL_ROOT_NOT_NAMED = "credential_root_not_named"
    CREDENTIAL_MISDIRECTED = "credential_misdirected"
    PLACEHOLDER_MISUSED = "placeholder_misused"
    PROXY_STOPPING = "proxy_stopping"


class _Part(msgspec.Struct, frozen=True, gc=False):
    """A frozen part of a record. A newer sidecar's record may have more fields."""


class MessageVersion(StrEnum):
    """The version that a message's own head names."""

    HTTP1_0 = "HTTP/1.0"
    HTTP1_1 = "HTTP/1.1"
    HTTP2 = "HTTP/2"


class LoggedBody(_Part, frozen=True):
    """What was captured of a body: its first bytes, content coding and all, without what frames chunks.

    `content` is text where the body is text in UTF-8 and has no content coding; else, with `base64`, its bytes.
    """

    content: str
    base64: bool
    truncated: bool
    """Whether the body was longer."""
    media_type: str | None
    """Content-Type, as it was sent."""
    encoding: str | None
    """Content-Encoding, as it was sent."""


class LoggedMessage(_Part, frozen=True):
    """The head of a request, as the client sent it, or of its final answer, as the upstream did: before any rule's changes."""

    version: MessageVersion
    headers: tuple[tuple[str, str | None], ...] | UnsetType = UNSET
    """Name and value, in their order; `*` for a value that is not told, null where only names are. Without HTTP/2's
    pseudo-header fields."""
    body: LoggedBody | UnsetType = UNSET


class Opcode(StrEnum):
    """What a WebSocket frame is (RFC 6455, section 5.2)."""

    CONTINUATION = "continuation"
    TEXT = "text"
    BINARY = "binary"
    CLOSE = "close"
    PING = "ping"
    PONG = "pong"


class WebSocketFrames(_Part, frozen=True):
    """The frames of one direction, by opcode."""

    text: int
    binary: int
    continuation: int
    ping: int
    pong: int
    close: int
    malformed: int
    """Those among them, and those with an opcode of none, that RFC 6455 does not allow. They were passed on."""
    close_code: int | None
    """Of the first Close (RFC 6455, section 7.4); null: there was none, or it had none."""


class WebSocketSender(StrEnum):
    """Whose message it is."""

    CLIENT = "client"
    SERVER = "server"


class WebSocketMessage(_Part, frozen=True):
    """One message, its fragments joined, or one control frame.

    `content` is what was captured of it, inflated where it was compressed: text, or with `base64` bytes. It is left out
    where nothing was.
    """

    sender: WebSocketSender
    opcode: Opcode
    at_ms: float
    """From the request's first byte to the message's last."""
    length: int
    """Bytes of its payload, as they were sent."""
    compressed: bool
    """By permessage-deflate (RFC 7692)."""
    truncated: bool = False
    """Whether there was more than `content` has."""
    content: str | UnsetType = UNSET
    base64: bool = False


class WebSocketRecord(_Part, frozen=True):
    """What went through a request that became a WebSocket."""

    client: WebSocketFrames
    server: WebSocketFrames
    messages: tuple[WebSocketMessage, ...] | UnsetType = UNSET
    """The first of them, by the time at which they ended; left out where no policy asks for them."""
    messages_left_out: int | UnsetType = UNSET
    """How many came after those."""


class TraceRecord(_Part, frozen=True):
    """Where the request stands in a trace, by its `traceparent` (W3C Trace Context). Ids are lower-case hex."""

    trace_id: str
    parent_id: str | None
    """The client's span; null where the sidecar began the trace."""
    sampled: bool
    """Whether the client, or who began the trace, may have recorded it."""
    span_id: str | UnsetType = UNSET
    """The sidecar's own span, which the upstream was told; left out where it was told the client's."""


class RequestRecord(msgspec.Struct, frozen=True, tag_field="record", tag="request", gc=False):
    """One request. Times: RFC 3339 in UTC, and milliseconds. Bytes are those of the bodies, as they were sent."""

    time: str
    flow: str
    """The `id` of the flow's record, which comes when the connection ends."""
    number: int
    """HTTP/1.1: which of its connection's requests, from 1. HTTP/2: the stream's id."""
    protocol: HTTPVersion
    scheme: Scheme
    host: str | None
    port: int
    """The one that the client connected to."""
    method: str
    path: str
    """With its query, the values of which are told only where a policy says so: `/search?q=*`."""
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
    sent_ms: float | UnsetType = UNSET
    """From the request's first byte to its last. Told with `request`."""
    request: LoggedMessage | UnsetType = UNSET
    response: LoggedMessage | UnsetType = UNSET
    """Left out as well where the upstream gave no answer, and for an answer of the sidecar's own."""
    websocket: WebSocketRecord | UnsetType = UNSET
    """There where the request became a WebSocket."""
    trace: TraceRecord | UnsetType = UNSET
    """There where a policy asks for it, and the request had a valid `traceparent` or was given one."""


IS_REQUEST = b'{"record":"request",'
"""How the line of a request begins."""

_encoder = msgspec.json.Encoder()


def encode_request(record: RequestRecord) -> bytes:
    """The record as one line of JSON, with its newline."""
    return _encoder.encode(record) + b"\n"
