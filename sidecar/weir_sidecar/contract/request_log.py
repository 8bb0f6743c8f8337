"""What records of requests tell beyond their one line: the `logging` of the sidecar config. docs/policy.md tells users.

What a credential touches is never told, whatever is asked for here.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

MOST_BODY = 1 << 20
"""Bytes of a body, at most."""
MOST_MESSAGES = 10000

type CapturedBytes = Annotated[int, msgspec.Meta(ge=1, le=MOST_BODY)]


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """A frozen part of the config; unknown fields are errors."""


class HeaderLog(StrEnum):
    """What is told of header fields. Redacted: their values, but those that are secrets, cookies or parts of queries."""

    NONE = "None"
    NAMES = "Names"
    REDACTED = "Redacted"
    ALL = "All"


class QueryLog(StrEnum):
    """What is told of a query: the names of its parameters, or their values too."""

    REDACTED = "Redacted"
    ALL = "All"


class BodyLog(_Value, frozen=True):
    """Of which bodies the first `max_bytes` are told; of all types where `content_types` names none."""

    request: bool = False
    response: bool = False
    max_bytes: CapturedBytes = 4096
    content_types: tuple[str, ...] = ()
    """`type/subtype` or `type/*`, in lower case."""


class WebSocketLog(_Value, frozen=True):
    """How many messages of a WebSocket are told, and how much of each."""

    messages: Annotated[int, msgspec.Meta(ge=0, le=MOST_MESSAGES)] = 0
    max_bytes: CapturedBytes = 4096


class Tracing(StrEnum):
    """What is done about W3C Trace Context. Record: what requests say is told. Propagate: the sidecar is a hop of its own."""

    NONE = "None"
    RECORD = "Record"
    PROPAGATE = "Propagate"


class RequestLog(_Value, frozen=True):
    """What is told of requests."""

    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """The share of requests that have a record; those that were denied, went wrong or were answered 5xx have one always."""
    headers: HeaderLog = HeaderLog.NONE
    query: QueryLog = QueryLog.REDACTED
    redact_headers: tuple[str, ...] = ()
    """Names of header fields, in lower case, of which no value is ever told."""
    redact_query: tuple[str, ...] = ()
    """Names of parameters, decoded, of which no value is ever told."""
    bodies: BodyLog = BodyLog()
    web_socket: WebSocketLog = WebSocketLog()
    tracing: Tracing = Tracing.NONE
