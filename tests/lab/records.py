"""Records of flows and requests for tests, each with what the test is about changed."""

import msgspec

from weir_cli.cluster.records import Line
from weir_cli.flows.told import Told, read
from weir_sidecar.contract.flow import Client, Decision, FlowRecord, Protocol, Reason, encode_record
from weir_sidecar.contract.request import HTTPVersion, RequestDecision, RequestRecord, Scheme, encode_request

PROCESS = "3f0a9c21d7"


def flow(number=1, **changes):
    base = FlowRecord(
        time="2026-01-01T10:20:30.456Z", id=f"{PROCESS}-{number:x}", client=Client(uid=1000), protocol=Protocol.TLS,
        host="example.com", sni="example.com", address="192.0.2.1", port=443, alpn="h2", decision=Decision.INTERCEPT,
        reason=Reason.RULE, rule="web", tls=None, bytes_up=10, bytes_down=20480, duration_ms=12.34,
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def request(number=1, of=1, **changes):
    base = RequestRecord(
        time="2026-01-01T10:20:31.456Z", flow=f"{PROCESS}-{of:x}", number=number, protocol=HTTPVersion.HTTP1,
        scheme=Scheme.HTTPS, host="example.com", port=443, method="GET", path="/a?b=*", status=200, request_bytes=0,
        response_bytes=20480, ttfb_ms=1.5, duration_ms=2.34, rule=None, decision=RequestDecision.ALLOW,
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def line(record):
    """As a file of records has it."""
    return encode_record(record) if isinstance(record, FlowRecord) else encode_request(record)


def told(record, pod=None, flow=None):
    """As it is read from there."""
    found = read(Line(line(record), pod))
    assert isinstance(found, Told)
    return msgspec.structs.replace(found, flow=flow)
