"""What policies say about records of requests: `spec.logging`. Each field's meaning for users is in docs/policy.md."""

from typing import Annotated

import msgspec

from weir_sidecar.contract.request_log import MOST_BODY, MOST_MESSAGES, HeaderLog, QueryLog, Tracing

type Share = Annotated[float, msgspec.Meta(extra={"grammar": "share"})]
type MediaType = Annotated[str, msgspec.Meta(extra={"grammar": "media type"})]
type FieldName = Annotated[str, msgspec.Meta(extra={"grammar": "header name"})]
type ParameterName = Annotated[str, msgspec.Meta(extra={"grammar": "parameter"})]
type CapturedBytes = Annotated[int, msgspec.Meta(ge=1, le=MOST_BODY)]


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A frozen part of a document; unknown fields are errors."""


class Redact(_Model, frozen=True):
    """Values that are never told, beside those that never are."""

    headers: tuple[FieldName, ...] = ()
    query: tuple[ParameterName, ...] = ()


class Bodies(_Model, frozen=True):
    """Of which bodies the beginning is told, and how much."""

    request: bool | None = None
    response: bool | None = None
    max_bytes: CapturedBytes | None = None
    content_types: Annotated[tuple[MediaType, ...], msgspec.Meta(min_length=1)] | None = None


class WebSocket(_Model, frozen=True):
    """How many messages of a WebSocket are told, and how much of each."""

    messages: Annotated[int, msgspec.Meta(ge=0, le=MOST_MESSAGES)] | None = None
    max_bytes: CapturedBytes | None = None


class Logging(_Model, frozen=True):
    """What records tell of requests."""

    sample: Share | None = None
    headers: HeaderLog | None = None
    query: QueryLog | None = None
    redact: Redact = Redact()
    bodies: Bodies = Bodies()
    web_socket: WebSocket = WebSocket()
    tracing: Tracing | None = None
