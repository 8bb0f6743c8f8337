"""What records tell of requests where a policy asks for more, through both relays."""

import asyncio
import gzip
import json

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from lab.edge import Surroundings
from lab.flow_bench import flows, weir_client
from lab.http1 import FLOW, RelayBench
from lab.http2_pair import Pair, forever
from lab.loopback import Wire, no_cycles, run
from weir_sidecar.contract.config import Action, Match, Rule, SidecarConfig
from weir_sidecar.contract.http import Credential, Header, PathMatch, RequestAction, RequestMatch, RequestRule
from weir_sidecar.contract.request import HTTPVersion, LoggedBody, MessageVersion, encode_request
from weir_sidecar.contract.request_log import BodyLog, HeaderLog, QueryLog, RequestLog
from weir_sidecar.core.captured import FLOW_BYTES, POD_BYTES
from weir_sidecar.edge.requests import FlowRequests

EVERYTHING = RequestLog(
    headers=HeaderLog.ALL, query=QueryLog.ALL, bodies=BodyLog(request=True, response=True, max_bytes=100)
)
POST = b"POST /x?q=1 HTTP/1.1\r\nHost: a.test\r\nCookie: c=1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n%b\r\n"


def bench(log=EVERYTHING, *http):
    rules = (Rule("web", Match(hosts=("a.test",)), Action.INTERCEPT, http=http),) if http else ()
    return RelayBench(SidecarConfig(rules=rules, logging=log), rule="web" if http else None)


def post(relay, sent=b'{"a":1}', answer=ANSWER % b"Content-Length: 2\r\n" + b"ok"):
    relay.client(POST % len(sent) + sent)
    relay.upstream(answer)
    (record,) = relay.records
    assert relay.surroundings.context.room.left == POD_BYTES
    return record


def test_by_itself_a_record_is_one_line_without_any_of_it():
    record = post(bench(RequestLog()))
    assert (record.path, record.sent_ms, record.request, record.response) == ("/x?q=*", UNSET, UNSET, UNSET)
    assert b"c=1" not in encode_request(record)


def test_heads_and_bodies_of_both():
    record = post(bench())
    assert record.path == "/x?q=1"
    assert record.request.version is MessageVersion.HTTP1_1
    assert record.request.headers == (
        ("Host", "a.test"), ("Cookie", "c=1"), ("Content-Type", "application/json"), ("Content-Length", "7"),
    )  # fmt: skip
    assert record.request.body == LoggedBody('{"a":1}', False, False, "application/json", None)
    assert record.response.headers == (("Content-Type", "text/plain"), ("Content-Length", "2"))
    assert record.response.body == LoggedBody("ok", False, False, "text/plain", None)
    assert record.sent_ms == 0.0


@pytest.mark.parametrize("size", [1, 7, 65536])
def test_a_chunked_body_is_told_without_its_frames(size):
    relay = bench()
    data = (
        b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in (b"hello", b" ", b"world"))
        + b"0\r\nX: y\r\n\r\n"
    )
    sent = POST.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked") + data
    got = b"".join(relay.client(sent[at : at + size]) for at in range(0, len(sent), size))
    assert got == sent
    answer = ANSWER % b"Transfer-Encoding: chunked\r\n" + data
    assert b"".join(relay.upstream(answer[at : at + size]) for at in range(0, len(answer), size)) == answer
    (record,) = relay.records
    assert (record.request.body.content, record.response.body.content) == ("hello world", "hello world")
    assert record.request_bytes == record.response_bytes == 11


def test_a_body_that_ends_with_the_connection_and_one_of_http_1_0():
    relay = bench()
    relay.client(b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n")
    relay.upstream(b"HTTP/1.0 200 OK\r\n\r\nto the ")
    relay.upstream(b"end")
    relay.down.end()
    (record,) = relay.close()
    assert record.request.version is record.response.version is MessageVersion.HTTP1_0
    assert record.request.body is UNSET
    assert record.response.body == LoggedBody("dG8gdGhlIGVuZA==", True, False, None, None)


def test_a_coded_body_stays_as_it_is_and_says_so():
    coded = gzip.compress(b"hello")
    answer = ANSWER % (b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(coded)) + coded
    body = post(bench(), answer=answer).response.body
    assert (body.base64, body.encoding, body.truncated) == (True, "gzip", False)


def test_a_long_body_is_cut_and_passes_whole():
    relay = bench()
    sent = b"x" * 300_000
    assert relay.client(POST % len(sent) + sent) == POST % len(sent) + sent
    relay.upstream(ANSWER % b"Content-Length: 2\r\n" + b"ok")
    (record,) = relay.records
    assert (record.request.body.content, record.request.body.truncated, record.request_bytes) == (
        "x" * 100,
        True,
        300_000,
    )


def test_only_bodies_of_the_types_that_are_asked_for():
    log = replace(EVERYTHING, bodies=replace(EVERYTHING.bodies, content_types=("text/*",)))
    record = post(bench(log))
    assert record.request.body is UNSET
    assert record.response.body.content == "ok"


def test_a_refused_request_has_its_head_and_no_answer_of_the_upstream():
    relay = bench(EVERYTHING, RequestRule("no", action=RequestAction.DENY))
    relay.client(b"GET / HTTP/1.1\r\nHost: a.test\r\nX-A: b\r\n\r\n")
    (record,) = relay.records
    assert record.request.headers == (("Host", "a.test"), ("X-A", "b"))
    assert record.response is UNSET


def test_heads_are_told_as_they_came_before_a_rule_changes_them():
    rule = RequestRule("r", set_request_headers=(Header("x-new", "1"),), remove_response_headers=("content-type",))
    record = post(bench(EVERYTHING, rule))
    assert "x-new" not in dict(record.request.headers)
    assert dict(record.response.headers)["Content-Type"] == "text/plain"


@pytest.mark.parametrize("status", [b"200 OK", b"302 Found"])
def test_what_a_credential_touches_is_told_by_names_alone(tmp_path, status):
    """The server says it back in all ways that it has."""
    (tmp_path / "key").write_text("s3cret")
    rule = RequestRule("r", credential=Credential("authorization", str(tmp_path / "key"), "Bearer {}"))
    relay = bench(EVERYTHING, rule)
    sent = b"POST / HTTP/1.1\r\nHost: a.test\r\nAuthorization: mine\r\nContent-Length: 2\r\n\r\nhi"
    assert b"Bearer s3cret" in relay.client(sent)
    relay.upstream(b"HTTP/1.1 %b\r\nLocation: /?s3cret\r\nX-Echo: s3cret\r\nContent-Length: 6\r\n\r\ns3cret" % status)
    (record,) = relay.records
    assert b"s3cret" not in encode_request(record)
    assert record.request.headers == (("Host", None), ("Authorization", None), ("Content-Length", None))
    assert record.response.headers == (("Location", None), ("X-Echo", None), ("Content-Length", None))
    assert record.request.body is record.response.body is UNSET


def test_a_sample_has_fewer_records_and_all_that_failed():
    relay = bench(RequestLog(sample=0), RequestRule("no", RequestMatch(paths=(PathMatch("/no"),)), RequestAction.DENY))
    for path in (b"/", b"/no", b"/"):
        relay.client(b"GET %b HTTP/1.1\r\nHost: a.test\r\n\r\n" % path)
    relay.upstream(ANSWER % b"Content-Length: 0\r\n" + b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
    assert [(one.number, one.status) for one in relay.close()] == [(2, 403), (3, 503)]


def test_all_requests_of_a_connection_share_its_room():
    relay = bench(replace(EVERYTHING, bodies=BodyLog(request=True, max_bytes=1 << 20)))
    half = b"y" * (FLOW_BYTES // 2)
    for _ in range(3):
        relay.client(POST % len(half) + half)
    assert relay.surroundings.context.room.left == POD_BYTES - FLOW_BYTES
    relay.upstream((ANSWER % b"Content-Length: 0\r\n") * 3)
    bodies = [one.request.body for one in relay.records]
    assert [body.truncated for body in bodies] == [False, True, True]
    assert sum(len(body.content) for body in bodies) <= FLOW_BYTES
    assert relay.surroundings.context.room.left == POD_BYTES


def test_what_a_connection_leaves_open_takes_no_room():
    relay = bench()
    relay.client(POST % 50 + b"not all of it")
    (record,) = relay.close()
    assert record.request.body.content == "not all of it"
    assert relay.surroundings.context.room.left == POD_BYTES


@pytest.mark.parametrize("size", [65536, 11])
def test_the_same_in_http2(size):
    surroundings = Surroundings(SidecarConfig(logging=EVERYTHING))
    flow = FlowRequests(surroundings.context, "f1", FLOW, None)
    flow.version = HTTPVersion.HTTP2
    pair = Pair(sizes=forever(size), flow=flow)
    pair.request(1, "/x?q=1", method="POST", end=False, more=(("content-type", "text/plain"), ("cookie", "c=1")))
    pair.client.send_data(1, b"hello ", pad_length=9)
    pair.client.send_data(1, b"world", end_stream=True)
    pair.request(3, "/y")
    pair.run()
    pair.server.send_headers(1, ((":status", "103"), ("link", "<x>")))
    pair.server.send_headers(1, ((":status", "200"), ("content-type", "application/json")))
    pair.server.send_data(1, json.dumps({"a": "b" * 200}).encode(), pad_length=0)
    pair.server.send_headers(1, (("x-trailer", "no"),), end_stream=True)
    pair.server.send_headers(3, ((":status", "204"),), end_stream=True)
    pair.run()
    one, other = sorted(surroundings.requests, key=lambda record: record.number)
    assert one.request.version is MessageVersion.HTTP2
    assert one.request.headers == (("content-type", "text/plain"), ("cookie", "c=1"))
    assert one.request.body == LoggedBody("hello world", False, False, "text/plain", None)
    assert one.response.headers == (("content-type", "application/json"),)
    assert one.response.body.content == '{"a": "' + "b" * 93
    assert one.response.body.truncated
    assert (other.request.body, other.response.headers, other.response.body) == (UNSET, (), UNSET)
    assert (one.sent_ms, other.sent_ms) == (0.0, 0.0)
    assert surroundings.context.room.left == POD_BYTES


async def origin(wire: Wire) -> None:
    if wire.tls is not None:
        await wire.handshake()
    while data := await wire.recv():
        if data.endswith(b"end"):
            await wire.send(ANSWER % b"Content-Length: 300000\r\n" + b"x" * 300_000)
    wire.end()


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_large_bodies_through_real_sockets(tls):
    """Nothing of what is captured passes by the sidecar's eyes, and nothing of it is left behind."""

    async def main():
        options = {} if tls else {"origin": None}
        async with flows(origin, config=SidecarConfig(logging=EVERYTHING), **options) as bench:
            wire, flow = bench.flow(weir_client() if tls else None)
            if tls:
                await wire.handshake()
            sent = b"y" * 200_000 + b"end"
            for _ in range(2):
                sending = asyncio.ensure_future(wire.send(POST % len(sent) + sent))
                got = 0
                while got < 300_000 + len(ANSWER % b"Content-Length: 300000\r\n"):
                    got += len(await wire.recv())
                await sending
            wire.close()
            await flow
            return bench.surroundings

    with no_cycles():
        surroundings = run(main)
        for record in surroundings.requests:
            assert (record.request_bytes, record.response_bytes) == (200_003, 300_000)
            assert (record.request.body.content, record.request.body.truncated) == ("y" * 100, True)
            assert (record.response.body.content, record.response.body.truncated) == ("x" * 100, True)
        assert len(surroundings.requests) == 2
        assert surroundings.context.room.left == POD_BYTES
