"""Trace context through both relays: on the wire, and in records."""

import h2.events
import pytest
from msgspec import UNSET, json

from lab.edge import Surroundings
from lab.http1 import FLOW, RelayBench
from lab.http2_pair import Pair, forever
from weir_sidecar.contract.config import Action, Match, Rule, SidecarConfig
from weir_sidecar.contract.http import Header, PathMatch, RequestAction, RequestMatch, RequestRule
from weir_sidecar.contract.request import HTTPVersion, RequestRecord, TraceRecord, encode_request
from weir_sidecar.contract.request_log import RequestLog, Tracing
from weir_sidecar.edge.requests import FlowRequests
from weir_sidecar.wire.trace_context import parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
ASKED = b"GET /x HTTP/1.1\r\nHost: a.test\r\nTraceParent: %b\r\nTraceState: x=1\r\n\r\n"
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
RULES = (
    RequestRule("no", RequestMatch(paths=(PathMatch("/no"),)), RequestAction.DENY),
    RequestRule("late", RequestMatch(paths=(PathMatch("/late"),)), delay=1, set_request_headers=(Header("x-a", "1"),)),
)


def config(tracing, *http, **log):
    rules = (Rule("web", Match(hosts=("a.test",)), Action.INTERCEPT, http=http),) if http else ()
    return SidecarConfig(rules=rules, logging=RequestLog(tracing=tracing, **log))


def bench(tracing, *http, **log):
    return RelayBench(config(tracing, *http, **log), rule="web" if http else None)


def told(relay):
    (record,) = relay.records
    assert json.decode(encode_request(record), type=RequestRecord) == record
    return record.trace


def parent_in(head):
    (line,) = (line for line in head.split(b"\r\n") if line.lower().startswith(b"traceparent:"))
    return parse(line.partition(b":")[2])


def test_by_itself_nothing_is_looked_at_or_told():
    relay = bench(Tracing.NONE)
    asked = ASKED % PARENT.encode()
    assert relay.client(asked) == asked
    relay.upstream(ANSWER)
    assert told(relay) is UNSET
    assert not relay.requests.asks


@pytest.mark.parametrize("value", [PARENT, PARENT.upper(), f"00-{'0' * 32}-{SPAN}-01"])
def test_recorded_requests_go_on_as_they_came_and_what_is_invalid_is_not_told(value):
    relay = bench(Tracing.RECORD)
    asked = ASKED % value.encode()
    assert relay.client(asked) == asked
    relay.upstream(ANSWER)
    assert told(relay) == (TraceRecord(TRACE, SPAN, True) if value == PARENT else UNSET)


def test_a_hop_of_http_1():
    relay = bench(Tracing.PROPAGATE)
    head = relay.client(ASKED % PARENT.encode())
    relay.upstream(ANSWER)
    own = parent_in(head)
    assert (own.trace_id, own.sampled) == (TRACE, True)
    assert own.parent_id != SPAN
    assert b"TraceState: x=1\r\n" in head
    assert told(relay) == TraceRecord(TRACE, SPAN, True, own.parent_id)


@pytest.mark.parametrize("share", [0, 1])
def test_a_new_trace_is_sampled_as_records_are(share):
    relay = bench(Tracing.PROPAGATE, sample=share)
    own = parent_in(relay.client(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"))
    assert own.sampled is bool(share)
    relay.upstream(ANSWER)
    if share:
        assert told(relay) == TraceRecord(own.trace_id, None, True, own.parent_id)
    assert len(relay.records) == share


def test_each_request_of_a_connection_has_a_span_of_its_own():
    relay = bench(Tracing.PROPAGATE)
    first, second = (parent_in(relay.client(ASKED % PARENT.encode())) for _ in range(2))
    assert first.trace_id == second.trace_id
    assert first.parent_id != second.parent_id


def test_a_denied_request_does_not_go_on_and_one_that_waits_goes_on_once():
    relay = bench(Tracing.PROPAGATE, *RULES)
    assert relay.client((ASKED % PARENT.encode()).replace(b"/x", b"/no")) == b""
    assert told(relay).trace_id == TRACE
    assert relay.client((ASKED % PARENT.encode()).replace(b"/x", b"/late")) == b""
    relay.loop.ring()
    head = relay.to_upstream()
    relay.upstream(ANSWER)
    assert b"x-a: 1\r\n" in head
    assert relay.records[1].trace.span_id == parent_in(head).parent_id


@pytest.mark.parametrize("size", [65536, 7])
@pytest.mark.parametrize("kind", ["text/plain", "application/grpc"])
def test_a_hop_of_http_2_and_grpc(size, kind):
    surroundings = Surroundings(config(Tracing.PROPAGATE))
    flow = FlowRequests(surroundings.context, "f1", FLOW, None)
    flow.version = HTTPVersion.HTTP2
    pair = Pair(sizes=forever(size), flow=flow)
    more = (("content-type", kind), ("traceparent", PARENT), ("tracestate", "x=1"))
    pair.request(1, method="POST", end=False, more=more)
    pair.client.send_data(1, b"hello", end_stream=False)
    pair.client.send_headers(1, (("x-trailer", "1"),), end_stream=True)
    pair.request(3)
    pair.run()
    for stream in (1, 3):
        pair.server.send_headers(stream, ((":status", "200"),), end_stream=True)
    pair.run()
    heads = {event.stream_id: dict(event.headers) for event in pair.at_server(h2.events.RequestReceived)}
    records = {record.number: record.trace for record in surroundings.requests}
    own = {stream: parse(head[b"traceparent"]) for stream, head in heads.items()}
    assert records[1] == TraceRecord(TRACE, SPAN, True, own[1].parent_id)
    assert records[3] == TraceRecord(own[3].trace_id, None, True, own[3].parent_id)
    assert own[1].trace_id == TRACE != own[3].trace_id
    assert (heads[1][b"tracestate"], heads[1][b"content-type"]) == (b"x=1", kind.encode())
    (trailers,) = pair.at_server(h2.events.TrailersReceived)
    assert trailers.headers == [(b"x-trailer", b"1")]
