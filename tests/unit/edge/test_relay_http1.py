import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.http1 import RelayBench
from samples.http1_requests import BODIES, CASES, PASSES
from weir_sidecar.contract.config import Action, Match, Rule, SidecarConfig
from weir_sidecar.contract.request import RequestDecision, RequestError

GOVERNED = SidecarConfig(rules=(Rule("no", Match(hosts=("evil.test",)), Action.DENY),))
GET = b"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("portion", [1 << 20, 7])
def test_what_servers_may_read_in_two_ways_is_refused_or_passed_as_it_is(name: str, portion: int) -> None:
    data, status = CASES[name]
    bench = RelayBench(GOVERNED)
    for start in range(0, len(data), portion):
        bench.up.feed(data[start : start + portion])
    if status == PASSES:
        assert bench.to_upstream() == data
        assert bench.to_client() == b""
        return
    assert bench.to_upstream() == b""
    answer = bench.to_client()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer
    assert bench.down.finished
    assert bench.client(GET) == b""
    (record,) = bench.close()
    assert (record.status, record.decision) == (status, RequestDecision.DENY)
    assert record.error in (RequestError.MALFORMED_REQUEST, RequestError.HEAD_TOO_LARGE)


@pytest.mark.parametrize("name", CASES)
def test_where_nothing_is_governed_everything_passes_as_it_is(name: str) -> None:
    data, status = CASES[name]
    bench = RelayBench()
    assert bench.client(data) == data
    assert bench.to_client() == b""
    assert not bench.aborted
    if status != PASSES:
        (record,) = bench.records
        assert (record.status, record.decision) == (None, RequestDecision.ALLOW)
        assert bench.client(b"anything\n") == b"anything\n"


@pytest.mark.parametrize("name", BODIES)
def test_a_malformed_body_ends_the_connection(name: str) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    bench = RelayBench(GOVERNED)
    assert bench.client(head) == head
    passed = bench.client(BODIES[name])
    assert BODIES[name].startswith(passed)
    assert bench.aborted
    assert bench.client(GET) == b""
    assert [record.error for record in bench.close()] == [RequestError.MALFORMED_REQUEST]


def test_a_request_and_its_answer_pass_untouched_and_are_told() -> None:
    bench = RelayBench()
    assert bench.client(GET) is not None
    bench.surroundings.time += 0.25
    assert bench.upstream(OK) == OK
    (record,) = bench.records
    assert (record.flow, record.number, record.method, record.host, record.path) == ("f1", 1, "GET", "a.test", "/a")
    assert (record.status, record.request_bytes, record.response_bytes) == (200, 0, 2)
    assert (record.ttfb_ms, record.duration_ms, record.error) == (250.0, 250.0, None)


def test_the_values_of_a_query_are_not_told() -> None:
    bench = RelayBench()
    bench.client(b"GET /s?q=secret&token HTTP/1.1\r\nHost: a.test\r\n\r\n")
    bench.upstream(OK)
    assert bench.records[0].path == "/s?q=*&*"


@pytest.mark.parametrize(
    ("request_", "answer", "after"),
    [
        (b"HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 0),
        (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 0),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n", 0),
        (GET, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0),
        (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n", 3),
        (GET, b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na", 1),
    ],
)  # fmt: skip
def test_the_end_of_an_answer_is_found(request_: bytes, answer: bytes, after: int) -> None:
    bench = RelayBench()
    bench.client(request_)
    bench.client(GET)
    assert bench.upstream(answer + OK) == answer + OK
    assert [record.response_bytes for record in bench.records] == [after, 2]
    assert [record.error for record in bench.records] == [None, None]


def test_an_answer_without_length_ends_with_the_connection() -> None:
    bench = RelayBench()
    bench.client(GET)
    assert bench.upstream(b"HTTP/1.1 200 OK\r\n\r\npart") == b"HTTP/1.1 200 OK\r\n\r\npart"
    assert bench.upstream(b" and part") == b" and part"
    assert bench.records == []
    bench.down.end()
    (record,) = bench.close()
    assert (record.status, record.response_bytes, record.error) == (200, 13, None)


def test_expect_continue_passes_both_ways() -> None:
    bench = RelayBench()
    head = b"PUT / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    assert bench.client(head) == head
    assert bench.upstream(b"HTTP/1.1 100 Continue\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert bench.client(b"abc") == b"abc"
    assert bench.upstream(OK) == OK
    assert [(record.status, record.request_bytes) for record in bench.records] == [(200, 3)]


def test_after_an_upgrade_bytes_are_nobodys_business() -> None:
    bench = RelayBench(GOVERNED)
    ask = b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    yes = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    assert bench.client(ask + b"\x81early") == ask
    assert bench.upstream(yes + b"\x82hello") == yes + b"\x82hello"
    assert bench.to_upstream() == b"\x81early"
    assert bench.client(b"\x00\x01\n") == b"\x00\x01\n"
    (record,) = bench.close()
    assert (record.status, record.error) == (101, None)


def test_a_refused_upgrade_leaves_http() -> None:
    bench = RelayBench(GOVERNED)
    ask = b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    bench.client(ask + GET)
    assert bench.upstream(OK) == OK
    assert bench.to_upstream() == GET
    bench.upstream(OK)
    assert [record.status for record in bench.records] == [200, 200]


def test_an_upgrade_to_http2_is_not_offered() -> None:
    bench = RelayBench()
    ask = (
        b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nAccept: */*\r\n\r\n"
    )
    assert bench.client(ask) == b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nAccept: */*\r\n\r\n"


def test_connect_becomes_a_tunnel() -> None:
    bench = RelayBench()
    ask = b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"
    assert bench.client(ask + b"\x16\x03") == ask
    assert bench.upstream(b"HTTP/1.1 200 OK\r\n\r\n") == b"HTTP/1.1 200 OK\r\n\r\n"
    assert bench.to_upstream() == b"\x16\x03"
    (record,) = bench.close()
    assert (record.method, record.host, record.path, record.status) == ("CONNECT", "a.test", "", 200)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
    ],
)
def test_an_answer_that_is_not_clear_passes_and_requests_are_read_all_the_same(answer: bytes) -> None:
    bench = RelayBench(GOVERNED)
    bench.client(GET)
    assert bench.upstream(answer) == answer
    assert bench.upstream(b"more\n") == b"more\n"
    assert bench.client(GET) == GET
    bench.client(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
    assert bench.to_upstream() == b""
    assert bench.aborted
    assert {record.error for record in bench.records[:2]} == {RequestError.MALFORMED_RESPONSE}


def test_an_answer_that_is_not_clear_may_come_before_the_request_is_whole() -> None:
    bench = RelayBench(GOVERNED)
    bench.client(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\n\r\nabc")
    bench.upstream(b"no answer\n")
    assert bench.client(b"def" + GET) == b"def" + GET
    assert [one.error for one in bench.close()] == [RequestError.MALFORMED_RESPONSE] * 2


def test_an_answer_may_come_before_the_request_is_whole() -> None:
    bench = RelayBench()
    bench.client(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\n\r\nabc")
    assert bench.upstream(OK) == OK
    assert bench.records == []
    bench.client(b"def" + GET)
    bench.upstream(OK)
    assert [(one.status, one.request_bytes, one.error) for one in bench.records] == [(200, 6, None), (200, 0, None)]


def test_a_host_that_the_policy_denies_is_refused_and_the_others_go_on() -> None:
    bench = RelayBench(GOVERNED)
    fronted = b"GET /x HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    assert bench.client(GET + fronted + GET) == GET + GET
    assert bench.to_client() == b""
    answer = bench.upstream(OK)
    assert answer.startswith(OK + b"HTTP/1.1 403 Forbidden\r\n")
    assert answer.endswith(b"Denied by policy: no\n")
    assert bench.upstream(OK) == OK
    assert [(one.host, one.status, one.rule) for one in bench.records] == [
        ("a.test", 200, None), ("evil.test", 403, "no"), ("a.test", 200, None),
    ]  # fmt: skip


def test_a_refused_request_with_a_body_is_the_last() -> None:
    bench = RelayBench(GOVERNED)
    bench.client(GET)
    bench.client(b"POST / HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 30\r\n\r\n" + GET)
    assert bench.to_upstream() == b""
    assert not bench.down.finished
    assert b"403 Forbidden" in bench.upstream(OK)
    assert bench.down.finished


def test_a_client_that_does_not_read_our_answers_is_reset() -> None:
    bench = RelayBench(GOVERNED)
    bench.down.backlog = 1 << 20
    bench.client(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
    assert bench.aborted


def test_requests_without_answers_are_bounded() -> None:
    bench = RelayBench()
    assert len(bench.client(GET * 1000)) < 300 * len(GET)
    sent = 0
    while len(bench.records) < 1000:
        bench.upstream(OK)
        sent += 1
        bench.loop.turn()
        assert sent <= 1000


@pytest.mark.parametrize(("error", "told"), [(RequestError.CLIENT_GONE, 1), (RequestError.UPSTREAM_GONE, 1)])
def test_a_request_without_its_answer_says_who_left(error: RequestError, told: int) -> None:
    bench = RelayBench()
    bench.client(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nabc")
    (record,) = bench.close(error)
    assert (record.error, record.status, record.request_bytes) == (error, None, 3)


TOKENS = st.text("abcXYZ-_0", min_size=1, max_size=8).map(str.encode)
VALUES = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=12).map(
    lambda text: text.strip().encode("latin-1").strip()
)
FIELDS = st.lists(st.tuples(TOKENS.map(lambda name: b"X-" + name), VALUES), max_size=4)
CONTENT = st.binary(max_size=40)


@st.composite
def bodies(draw, *, answer: bool) -> tuple[list[tuple[bytes, bytes]], list[h11.Data], bytes]:
    """Framing fields, what h11 is to send, and the content."""
    parts = draw(st.lists(CONTENT.filter(bool), max_size=3))
    content = b"".join(parts)
    if draw(st.booleans()):
        return [(b"Transfer-Encoding", b"chunked")], [h11.Data(data=part) for part in parts], content
    if not content and not answer and draw(st.booleans()):
        return [], [], b""
    return [(b"Content-Length", b"%d" % len(content))], [h11.Data(data=part) for part in parts], content


@st.composite
def exchanges(draw) -> tuple[bytes, bytes, tuple]:
    """A request and its answer as h11 writes them, and what a record should say."""
    method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS"]))
    path = b"/" + draw(TOKENS)
    framing, parts, content = draw(bodies(answer=False))
    client, server = h11.Connection(h11.CLIENT), h11.Connection(h11.SERVER)
    fields = [(b"Host", b"a.test"), *draw(FIELDS), *framing]
    request = client.send(h11.Request(method=method, target=path, headers=fields))
    request += b"".join(client.send(part) for part in parts) + client.send(h11.EndOfMessage())
    server.receive_data(request)
    while not isinstance(server.next_event(), h11.EndOfMessage):
        pass
    status = draw(st.sampled_from([200, 201, 204, 304, 404, 500]))
    framing, parts, answered = draw(bodies(answer=True))
    if status in (204, 304):
        framing, parts = [], []
    if status in (204, 304) or method == b"HEAD":
        parts, answered = [], b""
    answer = b""
    for _ in range(draw(st.integers(0, 2))):
        answer += server.send(h11.InformationalResponse(status_code=103, headers=draw(FIELDS)))
    answer += server.send(h11.Response(status_code=status, headers=[*draw(FIELDS), *framing]))
    answer += b"".join(server.send(part) for part in parts) + server.send(h11.EndOfMessage())
    return request, answer, (method.decode(), path.decode(), status, len(content), len(answered))


@st.composite
def portions(draw, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


@settings(deadline=None)
@given(st.data(), st.lists(exchanges(), min_size=1, max_size=4), st.sampled_from([None, GOVERNED]))
def test_what_h11_writes_passes_in_any_portions_and_is_read_as_h11_reads_it(data, sent, config) -> None:
    bench = RelayBench(config)
    requests, answers = b"".join(one[0] for one in sent), b"".join(one[1] for one in sent)
    assert b"".join(bench.client(part) for part in data.draw(portions(requests))) == requests
    assert b"".join(bench.upstream(part) for part in data.draw(portions(answers))) == answers
    assert [
        (one.method, one.path, one.status, one.request_bytes, one.response_bytes) for one in bench.records
    ] == [one[2] for one in sent]  # fmt: skip
    assert {one.error for one in bench.close()} == {None}


@settings(deadline=None)
@given(st.data(), st.sampled_from([one for one, status in CASES.values() if len(one) < 2000]), st.binary(max_size=30))
def test_portions_change_nothing(data, case: bytes, more: bytes) -> None:
    """However a connection's bytes are cut, the same goes on and the same is refused."""
    seen = []
    for parts in ([case + more], data.draw(portions(case + more))):
        bench = RelayBench(GOVERNED)
        passed = b"".join(bench.client(part) for part in parts)
        records = [(one.method, one.path, one.status, one.error) for one in bench.close()]
        seen.append((bench.to_client(), bench.aborted, records, passed if not bench.aborted else b""))
    assert seen[0] == seen[1]


class _Talk:
    """A random conversation: what each side may send next, in any order and any portions, with some of it malformed."""

    CLIENT = (
        GET,
        b"HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        b"CONNECT a.test:1 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"nonsense\r\n\r\n",
    )
    UPSTREAM = (
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"nonsense\r\n\r\n",
    )


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("client"), st.sampled_from(_Talk.CLIENT), st.integers(1, 80)),
            st.tuples(st.just("upstream"), st.sampled_from(_Talk.UPSTREAM), st.integers(1, 80)),
        ),
        max_size=12,
    ),
    st.sampled_from([None, GOVERNED]),
    st.sampled_from(list(RequestError)),
)
def test_whatever_the_two_say_each_request_is_told_once_and_the_denied_host_hears_nothing(talk, config, error) -> None:
    bench = RelayBench(config)
    sent = b""
    for side, data, portion in talk:
        for start in range(0, len(data), portion):
            if bench.aborted:
                break
            if side == "client":
                sent += bench.client(data[start : start + portion])
            else:
                bench.upstream(data[start : start + portion])
                sent += bench.to_upstream()
    tunnels = any(one.status == 101 or one.method == "CONNECT" for one in bench.close(error))
    if config is not None and not tunnels:
        assert b"evil.test" not in sent
    numbers = [one.number for one in bench.records]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
