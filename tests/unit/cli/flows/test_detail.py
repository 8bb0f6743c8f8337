"""What is told of one record: everything that is known, and what is not."""

import base64
import gzip

import msgspec
import pytest

from lab import records
from weir_cli.flows.detail import detail
from weir_sidecar.contract.flow import Client, TLSFacts
from weir_sidecar.contract.request import (
    LoggedBody,
    LoggedMessage,
    MessageVersion,
    Opcode,
    TraceRecord,
    WebSocketFrames,
    WebSocketMessage,
    WebSocketRecord,
    WebSocketSender,
)


def lines(record, flow=None, pod=None, requests=()):
    return [line.strip() for line in detail(records.told(record, pod, flow), requests)]


def pairs(found):
    return dict(line.split(maxsplit=1) for line in found if len(line.split(maxsplit=1)) == 2)


def answered(content, **changes):
    body = msgspec.structs.replace(LoggedBody(content, False, False, "text/plain", None), **changes)
    return lines(records.request(response=LoggedMessage(MessageVersion.HTTP1_1, (), body)))


def test_a_flow():
    flow = records.flow(
        client=Client(uid=7, ja4="t13d", address="10.0.0.9"), rule=None, error="upstream_reset", address_from_dns=False,
        tls=TLSFacts(client_version="1.3", client_alert=48, verify_error=20),
    )  # fmt: skip
    found = lines(flow, pod="web-1")
    assert found[0] == "FLOW"
    for line in (
        "to              example.com:443  (192.0.2.1)", "protocol        tls, h2", "rule            none: the default",
        "error           upstream_reset", "client          uid 7, 10.0.0.9, JA4 t13d", "TLS of client   1.3",
        "client's alert  48", "verify error    20", "address by DNS  no", "pod             web-1",
    ):  # fmt: skip
        assert line in found
    assert not any(line.startswith("TLS of server") for line in found)


@pytest.mark.parametrize(
    ("trace", "told"),
    [
        (TraceRecord("a1", "b2", True, "c3"), "a1: span c3, child of b2, sampled"),
        (TraceRecord("a1", "b2", False), "a1: child of b2, not sampled"),
        (TraceRecord("a1", None, True, "c3"), "a1: span c3, begun by the sidecar, sampled"),
        (msgspec.UNSET, None),
    ],
)
def test_the_trace_of_a_request(trace, told):
    assert pairs(lines(records.request(trace=trace))).get("trace") == told


def test_a_flow_and_its_requests():
    found = lines(
        records.flow(), requests=[records.told(records.request(2)), records.told(records.request(3, status=None))]
    )
    assert found[-3] == "REQUESTS OF THE FLOW (2)"
    assert found[-2].split()[:3] == ["3f0a-1/2", "200", "GET"]
    assert "no answer" in found[-1]


def test_what_was_not_recorded_is_said():
    found = lines(records.request(status=None, ttfb_ms=None))
    assert "header fields and body are not recorded" in found
    assert "answer          none" in found
    assert not any(line.startswith("answered after") for line in found)
    names = LoggedMessage(MessageVersion.HTTP2, (("cookie", None), ("authorization", "*")))
    told = lines(records.request(request=names))
    assert "cookie: (not recorded)" in told
    assert "authorization: *" in told


@pytest.mark.parametrize(
    ("content", "changes", "words"),
    [
        ("one\ntwo", {}, ["one", "two"]),
        (
            base64.b64encode(gzip.compress(b"packed", mtime=0)).decode(),
            {"base64": True, "encoding": "gzip"},
            ["packed"],
        ),
        ("AP8=", {"base64": True, "media_type": "image/png"}, ["2 bytes of image/png"]),
        ("begi", {"truncated": True}, ["begi", "… only the beginning was recorded"]),
        (base64.b64encode("grü".encode()[:-1]).decode(), {"base64": True, "truncated": True}, ["gr"]),
    ],
)
def test_bodies(content, changes, words):
    found = answered(content, **changes)
    assert all(word in found for word in words)


def test_a_long_body_is_cut():
    found = answered("x" * (1 << 20))
    assert "x" * (64 << 10) in found
    assert "… 983040 more bytes are recorded; --har has them" in found


def test_a_websocket():
    frames = WebSocketFrames(text=2, binary=0, continuation=0, ping=0, pong=0, close=1, malformed=0, close_code=1001)
    silent = WebSocketFrames(text=0, binary=0, continuation=0, ping=0, pong=0, close=0, malformed=0, close_code=None)
    client, server = WebSocketSender.CLIENT, WebSocketSender.SERVER
    told = (
        WebSocketMessage(client, Opcode.TEXT, 1.0, 3, compressed=False, content="a\nb", truncated=True),
        WebSocketMessage(server, Opcode.BINARY, 2.0, 3, compressed=False, content="AAEC", base64=True),
        WebSocketMessage(client, Opcode.TEXT, 3.0, 9, compressed=True),
    )
    found = lines(records.request(status=101, websocket=WebSocketRecord(frames, silent, told, 4)))
    start = found.index("WEBSOCKET")
    assert [line.split() for line in found[start + 1 : start + 8]] == [
        ["client", "sent", "2", "text,", "1", "close,", "closed", "with", "1001"],
        ["server", "sent", "nothing"],
        ["→", "1.0", "ms", "text", "3", "a"],
        ["b…"],
        ["←", "2.0", "ms", "binary", "3", "AAEC", "(Base64)"],
        ["→", "3.0", "ms", "text", "9"],
        ["…", "and", "4", "more", "messages"],
    ]
