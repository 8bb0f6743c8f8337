"""The HTTP/2 relay between a client and a server of the `h2` package, which refuse what is not HTTP/2."""

import gc
import weakref

import h2.errors
import h2.events
import h2.settings
import pytest

from lab.http2_pair import Pair, forever
from weir_sidecar.contract.request import RequestDecision, RequestError
from weir_sidecar.core.http_policy import ALLOWED, Edits, RequestFacts, RequestVerdict
from weir_sidecar.wire.http2 import ErrorCode, goaway, rst_stream

DENIED = RequestVerdict(RequestDecision.DENY, "no", 403, b"Denied by policy: no\n")
OK = [(":status", "200"), ("x-from", "server")]


def deny(path: bytes, verdict: RequestVerdict = DENIED):
    return lambda facts: verdict if facts.path == path else ALLOWED


def edit(*, request: Edits | None = None, response: Edits | None = None) -> RequestVerdict:
    return RequestVerdict(RequestDecision.ALLOW, "edit", request_edits=request, response_edits=response)


@pytest.mark.parametrize("size", [1, 7, 65536])
def test_untouched_bytes_are_the_same_bytes(size):
    pair = Pair(sizes=forever(size), begin=False)
    pair.client.initiate_connection()
    pair.server.initiate_connection()
    pair.request(1, "/one?a=b")
    pair.request(3, "/two", method="POST", end=False)
    sent = pair.client.data_to_send()
    pair.from_client(sent)
    assert bytes(pair.to_server) == sent
    pair.server.send_headers(1, OK)
    pair.server.send_data(1, b"x" * 3000, end_stream=True, pad_length=9)
    pair.server.reset_stream(3)
    sent = pair.server.data_to_send()
    pair.from_server(sent)
    assert bytes(pair.to_client) == sent
    one, three = pair.requests.all[1], pair.requests.all[3]
    assert one.facts == RequestFacts(b"GET", "a.test", b"/one", b"a=b", ())
    assert (one.response_bytes, one.answers, one.ends) == (3000, 1, [(200, None)])
    assert three.ends == [(None, RequestError.UPSTREAM_GONE)]


@pytest.mark.parametrize("size", [1, 65536])
def test_a_refused_stream_among_others_that_go_on(size):
    pair = Pair(deny(b"/secret"), sizes=forever(size))
    pair.request(1, "/a", method="POST", end=False)
    pair.request(3, "/secret", more=(("x-new", "entry"),))
    pair.request(5, "/b", more=(("x-new", "entry"),))
    pair.client.send_data(1, b"body", end_stream=True)
    pair.run()
    assert [e.stream_id for e in pair.at_server(h2.events.RequestReceived)] == [1, 5]
    assert dict(pair.at_server(h2.events.RequestReceived)[1].headers)[b"x-new"] == b"entry"
    for stream in (1, 5):
        pair.server.send_headers(stream, OK)
        pair.server.send_data(stream, b"fine", end_stream=True)
    pair.run()
    assert pair.at_client(h2.events.DataReceived, 3)[0].data == b"Denied by policy: no\n"
    assert [dict(e.headers)[b":status"] for e in pair.at_client(h2.events.ResponseReceived)] == [b"403", b"200", b"200"]
    assert len(pair.at_client(h2.events.StreamEnded)) == 3
    assert pair.requests.all[3].ends == [(403, None)]
    assert pair.requests.all[1].request_bytes == 4


def test_the_body_of_a_refused_request_costs_the_others_nothing():
    pair = Pair(deny(b"/secret"))
    pair.request(1, "/secret", method="PUT", end=False)
    pair.client.send_data(1, b"x" * 16000, pad_length=5)
    pair.run()
    assert pair.client.outbound_flow_control_window == 65535
    assert pair.at_client(h2.events.StreamReset, 1)[0].error_code is h2.errors.ErrorCodes.NO_ERROR
    assert pair.server.inbound_flow_control_window == 65535
    pair.request(3, "/fine", method="PUT", end=False)
    pair.client.send_data(3, b"y" * 16000, end_stream=True)
    pair.run()
    assert len(pair.at_server(h2.events.StreamEnded, 3)) == 1


def test_grpc_is_refused_in_its_own_terms():
    pair = Pair(deny(b"/pkg.S/M"))
    pair.request(
        1, "/pkg.S/M", method="POST", end=False, more=(("content-type", "application/grpc+proto"), ("te", "trailers"))
    )
    pair.run()
    fields = dict(pair.at_client(h2.events.ResponseReceived, 1)[0].headers)
    assert fields == {
        b":status": b"200",
        b"content-type": b"application/grpc",
        b"grpc-status": b"7",
        b"grpc-message": b"Denied by policy: no",
    }
    assert len(pair.at_client(h2.events.StreamEnded, 1)) == 1


def test_head_is_refused_without_a_body():
    pair = Pair(deny(b"/secret"))
    pair.request(1, "/secret", method="HEAD")
    pair.run()
    assert not pair.at_client(h2.events.DataReceived)
    assert dict(pair.at_client(h2.events.ResponseReceived)[0].headers)[b"content-length"] == b"21"


def test_a_refusal_waits_for_the_servers_settings():
    pair = Pair(deny(b"/"), begin=False)
    pair.client.initiate_connection()
    pair.request(1)
    pair.relay.from_client(pair.client.data_to_send())
    assert not pair.relay.for_client()
    pair.server.initiate_connection()
    pair.run()
    assert len(pair.at_client(h2.events.ResponseReceived, 1)) == 1


def test_a_refusal_does_not_cut_a_frame_in_two():
    pair = Pair(deny(b"/secret"))
    pair.request(1)
    pair.run()
    pair.server.send_headers(1, OK)
    pair.server.send_data(1, b"d" * 1000, end_stream=True)
    data = pair.server.data_to_send()
    pair.relay.from_upstream(data[:-500])
    pair.client_events += pair.client.receive_data(pair.relay.for_client())
    pair.request(3, "/secret")
    pair.run()
    assert not pair.at_client(h2.events.ResponseReceived, 3)
    pair.from_server(data[-500:])
    assert len(pair.at_client(h2.events.ResponseReceived, 3)) == 1
    assert len(pair.at_client(h2.events.StreamEnded)) == 2


def test_a_body_of_our_own_never_makes_the_upstream_overrun_the_window():
    pair = Pair(deny(b"/secret"))
    for stream in (1, 5):
        pair.request(stream)
    pair.run()
    pair.server.send_headers(1, OK)
    for _ in range(3):
        pair.server.send_data(1, b"d" * 16384)
    pair.run()
    pair.request(7, "/secret")
    pair.run()
    assert len(pair.at_client(h2.events.DataReceived, 7)) == 1
    pair.server.send_headers(5, OK)
    pair.server.send_data(5, b"d" * (65535 - 3 * 16384), end_stream=True)
    pair.run()  # h2 would raise FlowControlError
    assert not pair.relay.reads_upstream
    assert not pair.at_client(h2.events.DataReceived, 5)
    pair.client.acknowledge_received_data(3 * 16384, 1)
    pair.run()
    assert len(pair.at_client(h2.events.StreamEnded, 5)) == 1
    pair.client.acknowledge_received_data(21, 7)
    pair.client.acknowledge_received_data(65535 - 3 * 16384, 5)
    pair.run()
    assert pair.relay.reads_upstream
    assert pair.server.outbound_flow_control_window == pair.client.inbound_flow_control_window


def test_a_body_that_has_no_room_is_left_out():
    pair = Pair(deny(b"/secret"))
    pair.request(1)
    pair.run()
    pair.server.send_headers(1, OK)
    for size in (16384, 16384, 16384, 16383 - 5):
        pair.server.send_data(1, b"d" * size)
    pair.run()
    pair.request(3, "/secret")
    pair.run()
    assert dict(pair.at_client(h2.events.ResponseReceived, 3)[0].headers)[b":status"] == b"403"
    assert not pair.at_client(h2.events.DataReceived, 3)
    assert len(pair.at_client(h2.events.StreamEnded, 3)) == 1


def test_request_headers_are_set_and_removed_and_later_requests_read_the_same():
    edits = Edits(frozenset((b"x-secret", b"cookie")), ((b"x-secret", b"of ours"),))
    pair = Pair(lambda facts: edit(request=edits) if facts.path == b"/edit" else ALLOWED)
    more = (("x-secret", "theirs"), ("x-app", "1" * 100))
    pair.request(1, "/plain", more=more)
    pair.request(3, "/edit", more=more)
    pair.request(5, "/plain", more=more)
    pair.run()
    first, second, third = (e.headers for e in pair.at_server(h2.events.RequestReceived))
    assert list(first) == list(third)
    assert list(second)[-1] == (b"x-secret", b"of ours")
    assert [name for name, _ in second] == [b":method", b":scheme", b":path", b":authority", b"x-app", b"x-secret"]
    assert type(second[-1]).__name__ == "NeverIndexedHeaderTuple"


def test_response_headers_are_set_and_removed():
    edits = Edits(frozenset((b"x-from", b"x-set")), ((b"x-set", b"here"),))
    pair = Pair(lambda facts: edit(response=edits) if facts.path == b"/edit" else ALLOWED)
    pair.request(1, "/edit")
    pair.request(3)
    pair.run()
    pair.server.send_headers(1, [(":status", "103"), ("link", "</a>")])
    for stream in (1, 3):
        pair.server.send_headers(stream, OK)
        pair.server.send_headers(stream, [("x-from", "trailer")], end_stream=True)
    pair.run()
    first, second = (list(e.headers) for e in pair.at_client(h2.events.ResponseReceived))
    assert first == [(b":status", b"200"), (b"x-set", b"here")]
    assert second == [(b":status", b"200"), (b"x-from", b"server")]
    assert [list(e.headers) for e in pair.at_client(h2.events.TrailersReceived)] == [[(b"x-from", b"trailer")]] * 2
    assert pair.requests.all[1].ends == [(200, None)]


def test_a_rewritten_block_of_many_frames():
    edits = Edits(frozenset(), ((b"x-big", b"b" * 40000),))
    pair = Pair(lambda _: edit(request=edits))
    pair.request(1)
    pair.run()
    assert dict(pair.at_server(h2.events.RequestReceived)[0].headers)[b"x-big"] == b"b" * 40000


def test_an_abort_is_a_reset():
    pair = Pair(deny(b"/", RequestVerdict(RequestDecision.DENY, abort=True, error=RequestError.ABORTED_BY_RULE)))
    pair.request(1)
    pair.run()
    assert pair.at_client(h2.events.StreamReset)[0].error_code is h2.errors.ErrorCodes.INTERNAL_ERROR
    assert not pair.at_server(h2.events.RequestReceived)


@pytest.mark.parametrize("size", [1, 65536])
def test_a_delayed_request_goes_on_later_with_all_that_followed_it(size):
    delayed = RequestVerdict(RequestDecision.ALLOW, "slow", delay=1.0)
    pair = Pair(deny(b"/slow", delayed), sizes=forever(size))
    pair.request(1, "/before", method="POST", end=False, more=(("x-a", "1"),))
    pair.request(3, "/slow", method="POST", end=False, more=(("x-a", "1"),))
    pair.request(5, "/after", more=(("x-a", "1"),))
    pair.client.send_data(3, b"slow body", end_stream=True)
    pair.client.send_data(1, b"not held up", end_stream=True)
    pair.run()
    assert [e.stream_id for e in pair.at_server(h2.events.RequestReceived)] == [1]
    assert len(pair.at_server(h2.events.StreamEnded, 1)) == 1
    pair.timers.pass_time(0.9)
    pair.run()
    assert [e.stream_id for e in pair.at_server(h2.events.RequestReceived)] == [1]
    pair.timers.pass_time(0.2)
    pair.run()
    assert [e.stream_id for e in pair.at_server(h2.events.RequestReceived)] == [1, 3, 5]
    assert pair.at_server(h2.events.DataReceived, 3)[0].data == b"slow body"
    assert all(dict(e.headers)[b"x-a"] == b"1" for e in pair.at_server(h2.events.RequestReceived))


def test_a_delay_that_ends_in_the_middle_of_a_frame_of_its_stream():
    pair = Pair(deny(b"/slow", RequestVerdict(RequestDecision.ALLOW, delay=1.0)))
    pair.request(1, "/slow", method="POST", end=False)
    pair.client.send_data(1, b"x" * 1000, end_stream=True)
    data = pair.client.data_to_send()
    pair.from_client(data[:-300])
    pair.timers.pass_time(1)
    pair.run()
    pair.from_client(data[-300:])
    assert len(pair.at_server(h2.events.StreamEnded, 1)) == 1


def test_a_delayed_request_that_the_client_takes_back():
    pair = Pair(deny(b"/slow", RequestVerdict(RequestDecision.ALLOW, delay=1.0)))
    pair.request(1, "/slow", method="POST", end=False)
    pair.client.send_data(1, b"x" * 1000)
    pair.client.reset_stream(1)
    pair.request(3)
    pair.run()
    assert pair.client.outbound_flow_control_window == 65535
    pair.timers.pass_time(1)
    pair.run()
    assert [e.stream_id for e in pair.at_server(h2.events.RequestReceived)] == [3]
    assert pair.requests.all[1].ends == [(None, RequestError.CLIENT_GONE)]


def test_a_delayed_refusal():
    verdict = RequestVerdict(RequestDecision.DENY, "no", 403, b"no", delay=1.0)
    pair = Pair(deny(b"/slow", verdict))
    pair.request(1, "/slow")
    pair.request(3)
    pair.run()
    assert [e.stream_id for e in pair.at_server(h2.events.RequestReceived)] == [3]
    assert not pair.at_client(h2.events.ResponseReceived)
    pair.timers.pass_time(1)
    pair.run()
    assert len(pair.at_client(h2.events.ResponseReceived, 1)) == 1


def test_what_waits_is_bounded():
    pair = Pair(deny(b"/slow", RequestVerdict(RequestDecision.ALLOW, delay=1.0)))
    pair.server.increment_flow_control_window(1 << 20)
    pair.server.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
    pair.run()
    pair.request(1, "/slow", method="POST", end=False)
    sent = 0
    while pair.relay.reads_client and sent < 1 << 20:
        pair.client.send_data(1, b"x" * 16384)
        sent += 16384
        pair.run()
    assert sent < 300_000
    pair.timers.pass_time(1)
    pair.run()
    assert pair.relay.reads_client
    assert sum(len(e.data) for e in pair.at_server(h2.events.DataReceived)) == sent


@pytest.mark.parametrize("size", [1, 65536])
def test_settings_of_a_smaller_table_then_a_refusal_before_the_server_says_so(size):
    pair = Pair(deny(b"/secret"), sizes=forever(size))
    pair.request(1)
    pair.run()
    pair.server.send_headers(1, [*OK, ("x-table", "entry")], end_stream=True)
    pair.run()
    pair.client.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0})
    pair.run()
    pair.request(3, "/secret")
    pair.request(5)
    pair.run()
    pair.server.send_headers(5, [*OK, ("x-table", "entry")], end_stream=True)
    pair.run()
    assert len(pair.at_client(h2.events.ResponseReceived)) == 3


def test_no_table_larger_than_ours_is_ever_allowed():
    pair = Pair()
    pair.client.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 1 << 30})
    pair.run()
    assert pair.server.remote_settings.header_table_size == 65536


def test_a_push_is_judged_as_a_request():
    pair = Pair(deny(b"/secret"))
    pair.request(1)
    pair.run()
    for stream, path in ((2, "/secret"), (4, "/fine")):
        fields = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", "a.test"), ("x-p", "q")]
        pair.server.push_stream(1, stream, fields)
        pair.server.send_headers(stream, OK)
        pair.server.send_data(stream, b"pushed", end_stream=True)
    pair.run()
    assert [e.pushed_stream_id for e in pair.at_client(h2.events.PushedStreamReceived)] == [4]
    assert [e.data for e in pair.at_client(h2.events.DataReceived)] == [b"pushed"]
    assert pair.server.outbound_flow_control_window == 65535 - 6
    assert rst_stream(2, ErrorCode.REFUSED_STREAM) in pair.to_server


def test_goaway_ends_what_the_upstream_will_not_answer():
    pair = Pair()
    pair.request(1)
    pair.request(3)
    pair.run()
    pair.server.close_connection(last_stream_id=1)
    pair.run()
    assert pair.requests.all[3].ends == [(None, RequestError.UPSTREAM_GONE)]
    assert not pair.requests.all[1].ends
    pair.relay.close(RequestError.UPSTREAM_GONE)
    assert pair.requests.all[1].ends == [(None, RequestError.UPSTREAM_GONE)]


def test_cancelling_is_passed_on_and_told():
    pair = Pair()
    pair.request(1)
    pair.run()
    pair.client.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
    pair.run()
    assert pair.at_server(h2.events.StreamReset)[0].error_code is h2.errors.ErrorCodes.CANCEL
    assert pair.requests.all[1].ends == [(None, RequestError.CLIENT_GONE)]


def test_trailers_that_cross_a_reset_do_not_confuse_anybody():
    pair = Pair()
    pair.request(1, method="POST", end=False)
    pair.run()
    pair.server.reset_stream(1)
    pair.relay.from_upstream(pair.server.data_to_send())
    pair.client.send_headers(1, [("x-late", "trailer")], end_stream=True)
    pair.request(3, more=(("x-late", "trailer"),))
    pair.run()
    assert dict(pair.at_server(h2.events.RequestReceived, 3)[0].headers)[b"x-late"] == b"trailer"
    assert pair.relay.failed is None


def test_too_many_open_requests_are_refused_so_that_clients_try_again():
    pair = Pair()
    pair.server.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 5000})
    pair.run()
    for stream in range(1, 5001, 2):
        pair.request(stream)
    pair.run()
    refused = pair.at_client(h2.events.StreamReset)
    assert {e.error_code for e in refused} == {h2.errors.ErrorCodes.REFUSED_STREAM}
    assert 500 < 2500 - len(refused) < 2100


def test_an_error_of_the_client_ends_the_connection_with_its_code():
    pair = Pair()
    pair.relay.from_client(b"\0\0\1\1\4\0\0\0\1\x80")
    assert pair.relay.failed is ErrorCode.COMPRESSION_ERROR
    assert pair.relay.client_failed
    events = pair.client.receive_data(pair.relay.for_client())
    assert events[0].error_code is h2.errors.ErrorCodes.COMPRESSION_ERROR
    assert pair.server.receive_data(pair.relay.for_upstream())[0].error_code is h2.errors.ErrorCodes.INTERNAL_ERROR
    pair.relay.from_client(b"anything")
    assert not pair.relay.for_upstream()


def test_nothing_of_a_closed_relay_waits_for_the_garbage_collector():
    pair = Pair()
    pair.request(1)
    pair.run()
    relay = weakref.ref(pair.relay)
    pair.relay.close(RequestError.CLIENT_GONE)
    gc.disable()
    try:
        del pair.relay
        assert relay() is None
    finally:
        gc.enable()


def test_where_nothing_is_governed_the_malformed_goes_through_as_it_is():
    pair = Pair(governs=False)
    block = b"\x82\x87\x84\x00\x01X\x01y"  # an upper case name, and no authority
    data = len(block).to_bytes(3) + b"\1\5\0\0\0\1" + block
    pair.relay.from_client(data)
    assert pair.relay.for_upstream() == data


def leaking(size, **send):
    pair = Pair(sizes=forever(size))
    pair.requests.placeholders = (b"PLACEHOLDER",)
    pair.request(1, "/", method="POST", end=False)
    pair.request(3, "/", method="POST", end=False)
    return pair


@pytest.mark.parametrize("size", [1, 65536])
@pytest.mark.parametrize("parts", [(b"a PLACEHOLDER",), (b"a PLACE", b"HOLDER b"), (b"PLACEHOLDE", b"R")])
def test_a_placeholder_in_a_body_never_arrives_whole(size, parts):
    pair = leaking(size)
    for part in parts:
        pair.client.send_data(1, part)
        pair.run()
    arrived = b"".join(event.data for event in pair.at_server(h2.events.DataReceived))
    assert b"PLACEHOLDER" not in arrived
    assert pair.requests.all[1].ends == [(None, RequestError.PLACEHOLDER_MISUSED)]
    assert pair.at_client(h2.events.StreamReset, 1) or pair.at_client(h2.events.ConnectionTerminated)


def test_a_placeholder_in_frames_that_come_together_is_found():
    pair = leaking(65536)
    pair.client.send_data(1, b"a PLACE")
    pair.client.send_data(1, b"HOLDER b")
    pair.run()
    assert pair.requests.all[1].ends == [(None, RequestError.PLACEHOLDER_MISUSED)]
    assert not pair.at_server(h2.events.DataReceived)


def test_other_streams_go_on_where_a_whole_frame_can_be_kept_back():
    pair = leaking(65536)
    pair.client.send_data(1, b"PLACEHOLDER")
    pair.client.send_data(3, b"fine", end_stream=True)
    pair.run()
    assert [event.data for event in pair.at_server(h2.events.DataReceived)] == [b"fine"]
    assert pair.at_server(h2.events.StreamReset, 1)
    assert not pair.at_client(h2.events.ConnectionTerminated)
    assert pair.client.outbound_flow_control_window == 65535 - 4


def test_a_placeholder_in_trailers_breaks_the_stream():
    pair = leaking(65536)
    pair.client.send_headers(1, [("x-sum", "PLACEHOLDER")], end_stream=True)
    pair.run()
    assert pair.requests.all[1].ends == [(None, RequestError.PLACEHOLDER_MISUSED)]
    assert pair.at_server(h2.events.StreamReset, 1)
    assert not pair.at_server(h2.events.TrailersReceived)


PRIORITY_UPDATE = b"\0\0\x07\x10\0\0\0\0\0\0\0\0\x03u=1"
"""RFC 9218, section 7.1: of stream 3."""


@pytest.mark.parametrize("size", [1, 65536])
def test_what_is_said_of_the_connection_passes_as_it_is_whatever_is_refused_and_written_anew(size):
    """Priorities of both kinds, PING, SETTINGS, ALTSVC (RFC 7838) and frames that nobody knows."""
    pair = Pair(deny(b"/secret"), sizes=forever(size))
    pair.request(1, "/a", method="POST", end=False)
    pair.request(3, "/secret", more=(("x-new", "entry"),))
    pair.run()
    pair.client.prioritize(3, weight=16, depends_on=1)
    pair.client.ping(b"12345678")
    pair.client.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 7})
    said = PRIORITY_UPDATE + pair.client.data_to_send() + b"\0\0\1\xf0\xff\0\0\0\1x"
    before = len(pair.to_server)
    pair.from_client(said)
    assert bytes(pair.to_server[before:]) == said
    altsvc = b'\0\0\x0a\x0a\0\0\0\0\1\0\0h2=":1";'
    answers = pair.server.data_to_send() + altsvc
    before = len(pair.to_client)
    pair.from_server(answers)
    assert bytes(pair.to_client[before:]) == answers
    assert len(pair.at_client(h2.events.PingAckReceived)) == 1
    assert pair.server.remote_settings.max_concurrent_streams == 7


@pytest.mark.parametrize("from_server", [True, False])
def test_after_goaway_streams_that_are_in_flight_end_as_they_would(from_server):
    """RFC 9113, section 6.8. The frames are written by hand: `h2` ends with its own GOAWAY."""
    pair = Pair()
    pair.request(1, method="POST", end=False)
    pair.request(3, "/later")
    pair.run()
    frame = goaway(1 if from_server else 0, ErrorCode.NO_ERROR, "for today")
    if from_server:
        before = len(pair.to_client)
        pair.relay.from_upstream(frame)
        pair.to_client += pair.relay.for_client()
        assert bytes(pair.to_client[before:]) == frame
    else:
        pair.relay.from_client(frame)
        assert pair.relay.for_upstream() == frame
    pair.client.send_data(1, b"the rest", end_stream=True)
    pair.server.send_headers(1, OK)
    pair.server.send_data(1, b"whole", end_stream=True)
    pair.run()
    assert [event.data for event in pair.at_server(h2.events.DataReceived, 1)] == [b"the rest"]
    assert [event.data for event in pair.at_client(h2.events.DataReceived, 1)] == [b"whole"]
    assert pair.requests.all[1].ends == [(200, None)]
    assert pair.requests.all[3].ends == ([(None, RequestError.UPSTREAM_GONE)] if from_server else [])
    assert pair.relay.failed is None


def test_the_first_goaway_of_a_graceful_end_ends_nothing():
    """RFC 9113, section 6.8: it names the highest id; the last that is answered comes with a second one."""
    pair = Pair()
    pair.request(1)
    pair.run()
    pair.relay.from_upstream(goaway(2**31 - 1, ErrorCode.NO_ERROR))
    assert pair.relay.for_client() == goaway(2**31 - 1, ErrorCode.NO_ERROR)
    pair.request(3)
    pair.run()
    assert [event.stream_id for event in pair.at_server(h2.events.RequestReceived)] == [1, 3]
    assert not pair.requests.all[3].ends
