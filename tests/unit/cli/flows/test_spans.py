"""Requests as spans: names and attributes by the conventions, and where they stand in a trace."""

import msgspec
import pytest

from lab import records
from weir_cli.flows.messages import ExportError
from weir_cli.flows.spans import is_wanted, span
from weir_sidecar.contract.request import (
    HTTPVersion,
    LoggedMessage,
    MessageVersion,
    RequestDecision,
    RequestError,
    Scheme,
    TraceRecord,
)

TRACE, CALLER, OWN = "a" * 32, "b" * 16, "c" * 16


def made(flow=None, **changes):
    return span(records.request(**changes), flow)


def test_a_request_by_the_conventions():
    one = made(records.flow(), rule="web/api", protocol=HTTPVersion.HTTP2, request_bytes=5)
    assert (one.name, one.failed, one.end - one.start) == ("GET", False, 2_340_000)
    assert one.end == 1767262831_456_000_000
    assert one.attributes == {
        "http.request.method": "GET", "url.full": "https://example.com/a?b=*", "server.address": "example.com",
        "server.port": 443, "network.protocol.name": "http", "network.protocol.version": "2",
        "network.peer.address": "192.0.2.1", "network.peer.port": 443, "http.response.status_code": 200,
        "http.request.body.size": 5, "http.response.body.size": 20480, "weir.decision": "allow", "weir.rule": "web/api",
        "weir.request": "3f0a9c21d7-1/1", "weir.flow.reason": "rule", "weir.flow.rule": "web",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"status": 404}, "404"),
        ({"status": 399}, None),
        ({"status": 403, "decision": RequestDecision.DENY}, "403"),
        ({"status": None, "error": RequestError.UPSTREAM_GONE}, "upstream_gone"),
        ({"status": 502, "error": RequestError.CREDENTIAL_MISSING}, "credential_missing"),
        ({"status": None}, None),
    ],
)
def test_what_went_wrong(changes, error):
    one = made(**changes)
    assert (one.failed, one.attributes.get("error.type")) == (error is not None, error)
    assert ("http.response.status_code" in one.attributes) is (changes["status"] is not None)


def test_a_method_that_is_not_known_does_not_name_a_span():
    one = made(method="BREW")
    assert one.name == "HTTP"
    assert (one.attributes["http.request.method"], one.attributes["http.request.method_original"]) == ("_OTHER", "BREW")


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"port": 8443}, "https://example.com:8443/a?b=*"),
        ({"scheme": Scheme.HTTP, "port": 80, "host": "2001:db8::1"}, "http://[2001:db8::1]/a?b=*"),
        ({"method": "OPTIONS", "path": "*"}, "https://example.com"),
        ({"host": None}, None),
    ],
)
def test_urls(changes, url):
    assert made(**changes).attributes.get("url.full") == url


def test_http_1_0_and_an_address_in_the_place_of_a_host():
    one = made(records.flow(), request=LoggedMessage(MessageVersion.HTTP1_0), host=None)
    assert (one.attributes["network.protocol.version"], one.attributes["server.address"]) == ("1.0", "192.0.2.1")
    assert made().attributes["network.protocol.version"] == "1.1"


def test_it_stands_in_the_applications_trace():
    place = made(trace=TraceRecord(TRACE, CALLER, True, OWN)).place
    assert (place.trace_id, place.span_id, place.parent_id, place.sampled) == (TRACE, OWN, CALLER, True)
    heard = made(trace=TraceRecord(TRACE, CALLER, True)).place
    assert (heard.trace_id, heard.parent_id) == (TRACE, CALLER)
    assert heard.span_id not in {OWN, CALLER}


def test_ids_of_its_own_are_the_same_each_time_and_other_requests_have_others():
    one, again, other = made().place, made(status=500).place, made(number=2).place
    assert one == again
    assert one.parent_id is None
    assert len({one.trace_id, other.trace_id, one.span_id, other.span_id}) == 4
    assert (len(one.trace_id), len(one.span_id)) == (32, 16)


@pytest.mark.parametrize(
    ("trace", "wanted"),
    [
        (msgspec.UNSET, True),
        (TraceRecord(TRACE, CALLER, True), True),
        (TraceRecord(TRACE, CALLER, False, OWN), False),
        (TraceRecord(TRACE, None, False, OWN), True),
    ],
)
def test_a_trace_that_its_client_does_not_sample_is_not_sent(trace, wanted):
    assert is_wanted(records.request(trace=trace)) is wanted


@pytest.mark.parametrize("changes", [{"time": "yesterday"}, {"duration_ms": 1e300}, {"time": "1969-01-01T00:00:00Z"}])
def test_times_that_make_no_sense(changes):
    with pytest.raises(ExportError, match="3f0a-1/1"):
        made(**changes)
