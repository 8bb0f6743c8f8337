import json
import re
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.contract.request import (
    IS_REQUEST,
    REDACTED,
    HTTPVersion,
    LoggedBody,
    LoggedMessage,
    MessageVersion,
    Opcode,
    RequestDecision,
    RequestError,
    RequestRecord,
    Scheme,
    TraceRecord,
    WebSocketFrames,
    WebSocketMessage,
    WebSocketRecord,
    WebSocketSender,
    encode_request,
)

DOCS = Path(__file__).parents[3] / "docs/records.md"
RECORD = RequestRecord(
    time="2026-01-02T03:04:05.678Z", flow="f-1", number=1, protocol=HTTPVersion.HTTP2, scheme=Scheme.HTTPS,
    host="a.test", port=443, method="GET", path="/", status=200, request_bytes=0, response_bytes=5, ttfb_ms=1.0, duration_ms=2.0, rule=None,
    decision=RequestDecision.ALLOW,
)  # fmt: skip


def test_the_documentation_lists_the_fields_in_their_order_and_every_error():
    text = DOCS.read_text().partition("## Requests")[2].partition("### Messages")[0]
    names = [
        name for cell in re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    ]
    fields = list(json.loads(encode_request(FULL)))
    assert names == [*fields, "error", *RequestError]


FRAMES = WebSocketFrames(
    text=1, binary=0, continuation=2, ping=0, pong=0, close=1, malformed=0, close_code=1000
)  # fmt: skip
BODY = LoggedBody(content="aGVsbG8=", base64=True, truncated=False, media_type="text/plain", encoding="gzip")
MESSAGE = LoggedMessage(
    version=MessageVersion.HTTP1_1, headers=(("Accept", "text/html"), ("Cookie", REDACTED), ("X", None)), body=BODY
)
TOLD = WebSocketMessage(
    sender=WebSocketSender.CLIENT, opcode=Opcode.TEXT, at_ms=12.5, length=5, compressed=True, content="hello"
)
FULL = msgspec.structs.replace(
    RECORD, sent_ms=0.5, request=MESSAGE, response=MESSAGE,
    websocket=WebSocketRecord(client=FRAMES, server=FRAMES, messages=(TOLD,), messages_left_out=3),
    trace=TraceRecord("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=True),
)  # fmt: skip


def test_what_no_policy_asks_for_is_left_out():
    assert set(json.loads(encode_request(FULL))) - set(json.loads(encode_request(RECORD))) == {
        "sent_ms", "request", "response", "websocket", "trace"
    }  # fmt: skip


def test_a_record_with_all_that_a_policy_can_ask_for_reads_back():
    assert msgspec.json.decode(encode_request(FULL), type=RequestRecord) == FULL


def test_the_documentation_names_every_part_of_what_a_policy_can_ask_for():
    text = DOCS.read_text()
    for below, part in {
        "request.": LoggedMessage, "request.body.": LoggedBody, "websocket.": WebSocketRecord, "": WebSocketMessage,
        "trace.": TraceRecord,
    }.items():  # fmt: skip
        fields = {name for name in part.__struct_fields__ if name != "body"}
        assert fields <= {name.removeprefix(below) for name in re.findall(r"`([\w.]+)`", text)}
    assert {f"`{opcode}`" for opcode in Opcode} <= set(re.findall(r"`\w+`", text))


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(0, 1e12), st.none() | st.integers(100, 999))
def test_a_record_is_one_line_and_reads_back(text, duration, status):
    record = msgspec.structs.replace(RECORD, host=text, path=text, method=text, duration_ms=duration, status=status)
    line = encode_request(record)
    assert line.startswith(IS_REQUEST)
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line, type=RequestRecord) == record
