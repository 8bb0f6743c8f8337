import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.http1 import RelayBench
from weir_sidecar.contract.config import Action, Match, Rule, SidecarConfig
from weir_sidecar.contract.http import RequestAction, RequestRule
from weir_sidecar.contract.request import HTTPVersion

GOVERNED = SidecarConfig(rules=(Rule("no", Match(hosts=("evil.test",)), Action.DENY),))
RULED = SidecarConfig(
    rules=(Rule("api", Match(), Action.INTERCEPT, http=(RequestRule("no", action=RequestAction.DENY),)),)
)
GET = b"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")


def test_what_is_not_http_passes_unread() -> None:
    bench = RelayBench(is_http=False)
    assert bench.client(b"\x00\x01 binary") == b"\x00\x01 binary"
    assert bench.upstream(b"anything") == b"anything"
    assert bench.close() == []


def test_first_bytes_that_may_become_http_are_waited_for() -> None:
    bench = RelayBench(is_http=False)
    assert bench.client(b"GE") == b""
    assert bench.client(b"T /a HTTP/1.1\r\nHost: a.test\r\n\r\n") == GET
    quiet = RelayBench(is_http=False)
    quiet.client(b"hello")
    quiet.loop.ring()
    assert quiet.to_upstream() == b"hello"


def test_what_becomes_http_too_late_is_ended_where_anything_is_governed() -> None:
    bench = RelayBench(GOVERNED, is_http=False)
    bench.client(b"GE")
    bench.loop.ring()
    assert bench.to_upstream() == b"GE"
    assert bench.client(b"T / HTTP/1.1\r\nHost: evil.test\r\n\r\n") == b""
    assert bench.aborted


def test_a_flow_with_rules_on_requests_must_be_http():
    bench = RelayBench(RULED, rule="api", is_http=False)
    assert bench.client(b"\x00\x01\n") == b""
    assert bench.to_client().startswith(b"HTTP/1.1 400 ")
    slow = RelayBench(RULED, rule="api", is_http=False)
    slow.client(b"hello")
    slow.loop.ring()
    assert slow.to_upstream() == b""


def test_http2_without_alpn_is_read():
    bench = RelayBench(is_http=False)
    assert bench.client(PREFACE) == PREFACE
    assert bench.relay._requests.version is HTTPVersion.HTTP2
    assert bench.relay.error is None
    bench.close()


@pytest.mark.parametrize("config", [None, GOVERNED])
def test_http2_whose_server_spoke_first_is_ended_where_anything_is_governed(config):
    bench = RelayBench(config, is_http=False)
    assert bench.upstream(b"settings") == b"settings"
    assert bench.client(PREFACE) == (PREFACE if config is None else b"")
    assert bench.aborted is (config is not None)


def test_an_end_before_it_is_known_passes_what_was_held():
    bench = RelayBench(is_http=False)
    bench.client(b"QUIT")
    bench.up.end()
    assert bench.to_upstream() == b"QUIT"
    assert bench.close() == []


@given(st.integers(1, len(GET) - 1))
def test_in_two_portions_it_is_read_all_the_same(cut):
    bench = RelayBench(GOVERNED, is_http=False)
    first = bench.client(GET[:cut])
    passed = first + bench.client(GET[cut:])
    assert passed == GET
    assert bench.upstream(OK) == OK
    assert [one.path for one in bench.records] == ["/a"]
