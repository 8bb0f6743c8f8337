"""The flow record: what the sidecar tells about each connection, UDP flow and DNS query.

One JSON object a line (`encode_record`). Every flow has exactly one *decision* and one *reason*, also when it fails.
"""

from enum import StrEnum

import msgspec


class Protocol(StrEnum):
    """What the first bytes, or the port for DNS, said a flow is."""

    TLS = "tls"
    HTTP = "http"
    DNS = "dns"
    TCP = "tcp"
    UDP = "udp"


class Decision(StrEnum):
    """What was done with a flow."""

    INTERCEPT = "intercept"
    PASSTHROUGH = "passthrough"
    DENY = "deny"


class Reason(StrEnum):
    """Why. Each is explained in docs/reasons.md, and a test keeps the two in step."""

    RULE = "rule"
    DEFAULT = "default"
    NEVER_INTERCEPT = "never_intercept"
    PINNED = "pinned"
    APPROVED = "approved"
    CLIENT_DISTRUSTS_CA = "client_distrusts_ca"
    APP_DISTRUSTS_CA = "app_distrusts_ca"
    PROBATION = "probation"
    CLIENT_CERTIFICATE_REQUESTED = "client_certificate_requested"
    UPSTREAM_CERTIFICATE_INVALID = "upstream_certificate_invalid"
    UPSTREAM_TLS_FAILED = "upstream_tls_failed"
    CLIENT_TLS_TOO_OLD = "client_tls_too_old"
    CLIENT_HELLO_UNREADABLE = "client_hello_unreadable"
    NOT_TLS_OR_HTTP = "not_tls_or_http"
    SERVER_SPEAKS_FIRST = "server_speaks_first"
    CLIENT_SILENT = "client_silent"
    CLIENT_GONE = "client_gone"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    ADDRESS_NOT_FROM_DNS = "address_not_from_dns"
    DIRECT_TO_PROXY = "direct_to_proxy"
    QUIC_REJECTED = "quic_rejected"
    OTHER_UDP_DENIED = "other_udp_denied"
    DOH_CANARY = "doh_canary"
    DNS_MALFORMED = "dns_malformed"
    OVERLOADED = "overloaded"
    PROXY_STOPPING = "proxy_stopping"


class FlowError(StrEnum):
    """What went wrong with a connection, by side and class; the `error` of its record. Listed in docs/reasons.md."""

    UPSTREAM_REFUSED = "upstream_refused"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMED_OUT = "upstream_timed_out"
    UPSTREAM_RESET = "upstream_reset"
    UPSTREAM_TLS_FAILED = "upstream_tls_failed"
    UPSTREAM_CERTIFICATE_INVALID = "upstream_certificate_invalid"
    CLIENT_RESET = "client_reset"
    CLIENT_TLS_FAILED = "client_tls_failed"
    CLIENT_TIMED_OUT = "client_timed_out"
    CLIENT_LEFT_HANDSHAKE = "client_left_handshake"
    PROXY_STOPPING = "proxy_stopping"
    UPSTREAM_ANSWER_MALFORMED = "upstream_answer_malformed"
    CLIENT_HTTP_MALFORMED = "client_http_malformed"
    UPSTREAM_HTTP_MALFORMED = "upstream_http_malformed"
    CLIENT_UNREACHABLE = "client_unreachable"
    AGENT_AWAY = "agent_away"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"


class _Record(msgspec.Struct, frozen=True):
    """A frozen part of a record; names are snake_case on the wire. A newer sidecar's record may have more fields."""


class Client(_Record, frozen=True):
    """Who opened the flow, as far as it can be known."""

    uid: int | None = None
    ja4: str | None = None
    address: str | None = None


class TLSFacts(_Record, frozen=True):
    """What TLS said on both sides. Versions as "1.2" or "1.3"; alerts and verify errors as numbers (RFC 8446, X509_V_ERR_*)."""

    client_version: str | None = None
    upstream_version: str | None = None
    client_alert: int | None = None
    verify_error: int | None = None


class FlowRecord(_Record, frozen=True):
    """One flow, told when it ended. Times: RFC 3339 in UTC, milliseconds for durations. Bytes are the application's."""

    time: str
    id: str
    client: Client
    protocol: Protocol
    host: str | None
    sni: str | None
    address: str
    port: int
    alpn: str | None
    decision: Decision
    reason: Reason
    rule: str | None
    tls: TLSFacts | None
    bytes_up: int
    bytes_down: int
    duration_ms: float
    error: str | None = None
    address_from_dns: bool | None = None
    """Whether DNS gave this pod `address` for the name that the client claims; null where there is nothing to compare."""
    requests: int | None = None
    """How many HTTP requests were read in it; null where none could be."""


_encoder = msgspec.json.Encoder()


def encode_record(record: FlowRecord) -> bytes:
    """The record as one line of JSON, with its newline."""
    return _encoder.encode(record) + b"\n"
