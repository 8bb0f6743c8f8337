"""Requests as HAR 1.2: valid whatever was recorded, and each thing where browsers' tools look for it."""

import base64
import gzip
import json
import zlib
from datetime import UTC, datetime

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import records
from lab.har_schema import HAR
from weir_cli.flows.har import Archive
from weir_cli.flows.messages import ExportError
from weir_sidecar.contract.request import (
    HTTPVersion,
    LoggedBody,
    LoggedMessage,
    MessageVersion,
    Opcode,
    RequestDecision,
    RequestError,
    Scheme,
    WebSocketFrames,
    WebSocketMessage,
    WebSocketRecord,
    WebSocketSender,
)

SCHEMA = jsonschema.Draft202012Validator(HAR)


def entries(*told):
    archive = Archive()
    for one in told:
        archive.add(one)
    made = json.loads("".join(archive.pieces()))
    SCHEMA.validate(made)
    assert len(archive) == len(made["log"]["entries"])
    return made["log"]["entries"]


def entry(flow=None, pod=None, **changes):
    (one,) = entries(records.told(records.request(**changes), pod, flow))
    return one


def message(headers=(), body=None, version=MessageVersion.HTTP1_1):
    return LoggedMessage(version, tuple(headers), msgspec.UNSET if body is None else body)


def body(content, *, truncated=False, media_type="text/plain", encoding=None):
    text = isinstance(content, str)
    told = content if text else base64.b64encode(content).decode()
    return LoggedBody(told, not text, truncated, media_type, encoding)


def test_a_request_of_which_nothing_was_asked_for():
    one = entry(records.flow(), pod="web-1", path="/a?b=*&c=&d", rule="web/api")
    assert one["startedDateTime"] == "2026-01-01T10:20:31.453Z"
    assert one["time"] == 2.34
    assert one["timings"] == {
        "blocked": -1, "dns": -1, "connect": -1, "ssl": -1, "send": 0.0, "wait": 1.5, "receive": 0.84,
    }  # fmt: skip
    assert (one["serverIPAddress"], one["connection"]) == ("192.0.2.1", "3f0a9c21d7-1")
    assert one["request"] == {
        "method": "GET", "url": "https://example.com/a?b=*&c=&d", "httpVersion": "HTTP/1.1", "cookies": [], "headers": [],
        "queryString": [{"name": "b", "value": "*"}, {"name": "c", "value": ""}, {"name": "d", "value": ""}],
        "headersSize": -1, "bodySize": 0,
    }  # fmt: skip
    assert one["response"] == {
        "status": 200, "statusText": "", "httpVersion": "HTTP/1.1", "cookies": [], "headers": [], "redirectURL": "",
        "content": {"size": 20480, "mimeType": "x-unknown"}, "headersSize": -1, "bodySize": 20480,
    }  # fmt: skip
    assert one["_weir"] == {
        "id": "3f0a-1/1", "pod": "web-1", "decision": "allow", "rule": "web/api", "reason": "rule", "flowRule": "web",
    }  # fmt: skip


def test_flows_are_no_entries_and_entries_are_in_order_of_their_beginning():
    late = records.told(records.request(1, duration_ms=1.0))
    early = records.told(records.request(2, duration_ms=1000.0))
    assert [one["_weir"]["id"] for one in entries(late, records.told(records.flow()), early)] == [
        "3f0a-1/2",
        "3f0a-1/1",
    ]


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"scheme": Scheme.HTTP, "port": 80}, "http://example.com/a?b=*"),
        ({"port": 8443}, "https://example.com:8443/a?b=*"),
        ({"host": "2001:db8::1"}, "https://[2001:db8::1]/a?b=*"),
        ({"host": "[2001:db8::1]", "port": 444}, "https://[2001:db8::1]:444/a?b=*"),
        ({"host": None}, "https://192.0.2.1/a?b=*"),
        ({"path": "*", "method": "OPTIONS"}, "https://example.com/*"),
        ({"path": "/ü b/%41\\xff"}, "https://example.com/%C3%BC%20b/%41%5Cxff"),
    ],
)
def test_urls(changes, url):
    assert entry(records.flow(), **changes)["request"]["url"] == url


def test_without_an_answer_the_status_is_0_as_browsers_have_it():
    one = entry(status=None, ttfb_ms=None, response_bytes=0, error=RequestError.UPSTREAM_GONE)
    assert (one["response"]["status"], one["response"]["httpVersion"], one["response"]["bodySize"]) == (0, "", -1)
    assert one["timings"]["wait"] == 2.34
    assert one["_weir"]["error"] == "upstream_gone"


def test_header_fields_and_cookies_and_what_is_not_told_of_them():
    sent = message([("Accept", "*"), ("Authorization", "*"), ("X", None), ("Cookie", "a=1; b=2=3")])
    got = message(
        [
            ("Location", "/next"),
            ("Set-Cookie", "id=7; Path=/; Domain=example.com; Secure; HttpOnly; Expires=Wed, 09 Jun 2027 10:18:14 GMT"),
            ("Set-Cookie", "broken; Expires=never"),
            ("Set-Cookie", "*"),
        ],
        version=MessageVersion.HTTP1_0,
    )
    one = entry(request=sent, response=got, sent_ms=0.5)
    unsaid = {"comment": "the value is not recorded"}
    assert one["request"]["headers"] == [
        {"name": "Accept", "value": "*"},
        {"name": "Authorization", "value": "*", **unsaid},
        {"name": "X", "value": "", **unsaid},
        {"name": "Cookie", "value": "a=1; b=2=3"},
    ]
    assert one["request"]["cookies"] == [{"name": "a", "value": "1"}, {"name": "b", "value": "2=3"}]
    assert one["response"]["redirectURL"] == "/next"
    assert one["response"]["httpVersion"] == "HTTP/1.0"
    assert one["response"]["cookies"] == [
        {
            "name": "id", "value": "7", "path": "/", "domain": "example.com", "secure": True, "httpOnly": True,
            "expires": "2027-06-09T10:18:14+00:00",
        },
        {"name": "broken", "value": ""},
    ]  # fmt: skip
    assert one["timings"]["send"] == 0.5
    assert one["timings"]["wait"] == 1.0


def deflated(text):
    return zlib.compress(text)[2:-4]


@pytest.mark.parametrize(
    ("logged", "said"),
    [
        (body("grüß"), {"size": 6, "mimeType": "text/plain", "text": "grüß"}),
        (body(b"\x00\xff"), {"size": 2, "mimeType": "text/plain", "text": "AP8=", "encoding": "base64"}),
        (body("x", media_type=None), {"size": 1, "mimeType": "x-unknown", "text": "x"}),
        (
            body(gzip.compress(b"hello" * 9), encoding="gzip"),
            {"size": 45, "mimeType": "text/plain", "text": "hello" * 9, "compression": 45 - 20},
        ),
        (
            body(zlib.compress(b"hello" * 9), encoding="Deflate"),
            {"size": 45, "mimeType": "text/plain", "text": "hello" * 9, "compression": 45 - 20},
        ),
        (
            body(deflated(b"hello" * 9), encoding="deflate"),
            {"size": 45, "mimeType": "text/plain", "text": "hello" * 9, "compression": 45 - 20},
        ),
        (
            body(b"\x8b\x02", encoding="br"),
            {"size": 20, "mimeType": "text/plain", "text": "iwI=", "encoding": "base64", "_contentEncoding": "br"},
        ),
        (
            body("beg", truncated=True),
            {"size": 20, "mimeType": "text/plain", "text": "beg", "comment": "only the beginning was recorded"},
        ),
        (
            body(gzip.compress(b"hello" * 9)[:-12], encoding="gzip", truncated=True),
            {"size": 20, "mimeType": "text/plain", "comment": "only the beginning was recorded"},
        ),
    ],
)
def test_bodies_of_answers(logged, said):
    content = entry(response=message(body=logged), response_bytes=20)["response"]["content"]
    assert {**content, "text": said.get("text", content["text"])} == {"text": content["text"], **said}


def test_bodies_of_requests():
    one = entry(method="POST", request=message(body=body('{"a":1}', media_type="application/json")), request_bytes=7)
    assert one["request"]["postData"] == {"mimeType": "application/json", "text": '{"a":1}'}
    assert one["request"]["bodySize"] == 7
    raw = entry(method="POST", request=message(body=body(b"\xff", media_type="image/png")), request_bytes=1)
    assert raw["request"]["postData"] == {"mimeType": "image/png", "text": "/w==", "_encoding": "base64"}


FRAMES = WebSocketFrames(text=1, binary=0, continuation=0, ping=0, pong=0, close=1, malformed=0, close_code=1000)


def websocket(*messages, left_out=0):
    return WebSocketRecord(FRAMES, FRAMES, messages, left_out)


def test_websocket_messages_are_where_chrome_and_firefox_have_them():
    client, server = WebSocketSender.CLIENT, WebSocketSender.SERVER
    one = entry(
        status=101, duration_ms=1000.0,
        websocket=websocket(
            WebSocketMessage(client, Opcode.TEXT, 10.0, 5, compressed=True, content="hello"),
            WebSocketMessage(server, Opcode.BINARY, 20.5, 900, compressed=False, truncated=True, content="AAEC", base64=True),
            WebSocketMessage(server, Opcode.CLOSE, 30.0, 2, compressed=False, content="A+g=", base64=True),
            WebSocketMessage(client, Opcode.TEXT, 40.0, 7, compressed=True),
            left_out=3,
        ),
    )  # fmt: skip
    began = datetime(2026, 1, 1, 10, 20, 30, 456000, UTC).timestamp()
    assert one["request"]["url"] == "wss://example.com/a?b=*"
    assert one["_resourceType"] == "websocket"
    assert one["_webSocketMessages"] == [
        {"type": "send", "time": pytest.approx(began + 0.01), "opcode": 1, "data": "hello"},
        {"type": "receive", "time": pytest.approx(began + 0.0205), "opcode": 2, "data": "AAEC", "_length": 900},
        {"type": "receive", "time": pytest.approx(began + 0.03), "opcode": 8, "data": "A+g="},
        {"type": "send", "time": pytest.approx(began + 0.04), "opcode": 1, "data": "", "_length": 7},
    ]
    assert one["_weir"]["webSocket"]["messages_left_out"] == 3
    assert one["_weir"]["webSocket"]["client"]["text"] == 1


@pytest.mark.parametrize("changes", [{"time": "yesterday"}, {"duration_ms": 1e300}])
def test_a_time_that_is_none_is_named(changes):
    with pytest.raises(ExportError, match="3f0a-1/1: found the time"):
        entry(**changes)


text = st.text(max_size=8)
headers = st.lists(
    st.tuples(st.sampled_from(["Cookie", "Set-Cookie", "Location", "Accept", "x"]), st.none() | st.just("*") | text)
)
codings = st.sampled_from([None, "gzip", "deflate", "br", "identity"])
bodies = st.builds(
    LoggedBody,
    content=text,
    base64=st.booleans(),
    truncated=st.booleans(),
    media_type=st.none() | text,
    encoding=codings,
)
messages = st.just(msgspec.UNSET) | st.builds(
    LoggedMessage,
    version=st.sampled_from(MessageVersion),
    headers=st.just(msgspec.UNSET) | headers.map(tuple),
    body=st.just(msgspec.UNSET) | bodies,
)
times = st.floats(0, 1e6)


@given(
    st.fixed_dictionaries({
        "protocol": st.sampled_from(HTTPVersion),
        "scheme": st.sampled_from(Scheme),
        "host": st.sampled_from(["example.com", "::1", None]),
        "port": st.integers(1, 65535),
        "path": text.map(lambda path: "/" + path),
        "status": st.none() | st.integers(100, 999),
        "ttfb_ms": st.none() | times,
        "duration_ms": times,
        "sent_ms": st.just(msgspec.UNSET) | times,
        "decision": st.sampled_from(RequestDecision),
        "request": messages,
        "response": messages,
    })
)  # fmt: skip
def test_whatever_was_recorded_is_valid(changes):
    one = entry(**changes)
    known = ("send", "wait", "receive")
    assert one["time"] == pytest.approx(sum(one["timings"][name] for name in known), abs=0.01)
