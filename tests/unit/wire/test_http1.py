import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samples.http1_requests import BODIES, CASES
from weir_sidecar.wire.http1 import (
    MAX_HEAD,
    HeadReader,
    MalformedError,
    joined,
    parse_answer,
    parse_request,
    without_upgrade_to_http2,
    write_answer,
    write_request,
)
from weir_sidecar.wire.http1_body import Body

HEAD = b"GET /a?b HTTP/1.1\r\nHost: A.test:80\r\nX-Odd:\t y \r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nServer: x\r\n\r\n"


def test_a_requests_head() -> None:
    head = parse_request(b"??" + HEAD + b"more", 2)
    assert head is not None
    assert (head.size, head.method, head.target, head.minor) == (len(HEAD), b"GET", b"/a?b", 1)
    assert (head.host, head.path, head.query) == ("a.test", b"/a", b"b")
    assert (head.has_body, head.upgrade) == (False, False)
    assert head.fields() == [(b"Host", b"A.test:80"), (b"X-Odd", b"y")]
    assert write_request(head, head.fields()) == HEAD.replace(b"\t y ", b" y")


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        (b"/", "a.test", b"/", None),
        (b"/?", "a.test", b"/", b""),
        (b"//x", "a.test", b"//x", None),
        (b"http://a.test", "a.test", b"/", None),
        (b"HTTPS://A.TEST:8443/x?y", "a.test", b"/x", b"y"),
    ],
)
def test_targets(target: bytes, host: str, path: bytes, query: bytes | None) -> None:
    head = parse_request(b"GET %b HTTP/1.1\r\nHost: a.test\r\n\r\n" % target)
    assert head is not None
    assert (head.host, head.path, head.query) == (host, path, query)


@pytest.mark.parametrize(
    ("named", "host"),
    [(b"192.0.2.1", "192.0.2.1"), (b"[2001:DB8::1]:80", "2001:db8::1"), (b"a_b.test.", "a_b.test")],
)
def test_hosts(named: bytes, host: str) -> None:
    head = parse_request(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % named)
    assert head is not None
    assert head.host == host


@pytest.mark.parametrize("cut", range(len(HEAD)))
def test_a_head_that_is_not_whole_is_waited_for(cut: int) -> None:
    assert parse_request(HEAD[:cut]) is None
    assert parse_answer(ANSWER[: min(cut, len(ANSWER) - 1)], 0, b"GET") is None


@pytest.mark.parametrize(
    ("answer", "method", "chunked", "length"),
    [
        (ANSWER, b"GET", False, 3),
        (ANSWER, b"HEAD", False, 0),
        (ANSWER.replace(b"200", b"304"), b"GET", False, 0),
        (ANSWER.replace(b"200", b"103"), b"GET", False, 0),
        (ANSWER.replace(b"Content-Length: 3", b"Transfer-Encoding: gzip, chunked"), b"GET", True, None),
        (ANSWER.replace(b"Content-Length: 3", b"Transfer-Encoding: CHUNKED "), b"GET", True, None),
        (ANSWER.replace(b"Content-Length: 3", b"Transfer-Encoding: gzip"), b"GET", False, None),
        (ANSWER.replace(b"Content-Length", b"Content"), b"GET", False, None),
        (b"HTTP/1.0 200\r\n\r\n", b"GET", False, None),
    ],
)
def test_where_answers_end(answer: bytes, method: bytes, chunked: bool, length: int | None) -> None:
    head = parse_answer(answer, 0, method)
    assert head is not None
    assert (head.size, head.chunked, head.length) == (len(answer), chunked, length)
    if answer is ANSWER:
        assert write_answer(head, head.fields()) == answer


def test_a_head_that_repeats_is_read_once_and_another_is_not_taken_for_it() -> None:
    heads = HeadReader()
    first = heads.request(HEAD, 0)
    assert heads.request(HEAD + b"more", 0) is first
    assert heads.request(HEAD.replace(b"/a", b"/c"), 0) != first
    answer = heads.answer(ANSWER, 0, b"GET")
    assert heads.answer(b"?" + ANSWER, 1, b"POST") is answer
    to_head = heads.answer(ANSWER, 0, b"HEAD")
    assert to_head is not None
    assert to_head.length == 0
    again = heads.answer(ANSWER, 0, b"GET")
    assert again is not None
    assert again.length == 3


@given(st.lists(st.integers(1, 40), min_size=1))
def test_a_head_in_portions_is_read_when_it_is_whole(sizes: list[int]) -> None:
    held, at, number = bytearray(HEAD[:1]), 1, 0
    whole = None
    while whole is None:
        size = sizes[number % len(sizes)]
        whole = joined(held, HEAD[at : at + size])
        at, number = at + size, number + 1
    assert whole == HEAD
    assert not held


def test_what_cannot_become_a_head_is_read_at_once() -> None:
    assert joined(bytearray(b"GET / HTTP/1.1"), b"\nHost") == b"GET / HTTP/1.1\nHost"
    assert joined(bytearray(b"x" * MAX_HEAD), b"y") is not None
    assert joined(bytearray(b"GET"), b" / ") is None


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ([(b"Upgrade", b"websocket")], None),
        ([(b"Accept", b"x")], None),
        ([(b"Upgrade", b"h2c"), (b"Connection", b"Upgrade, HTTP2-Settings")], [(b"Connection", b"upgrade")]),
        ([(b"Upgrade", b"h2c, foo"), (b"HTTP2-Settings", b"x"), (b"A", b"B")], [(b"Upgrade", b"foo"), (b"A", b"B")]),
    ],
)
def test_an_upgrade_to_http2_is_taken_out(fields, left) -> None:
    assert without_upgrade_to_http2(fields) == left


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5), st.binary(max_size=10), st.integers(1, 9))
def test_a_body_ends_where_h11_ends_it(parts: list[bytes], after: bytes, portion: int) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="PUT", target="/", headers=[("Host", "a"), ("Transfer-Encoding", "chunked")]))
    wire = b"".join(client.send(h11.Data(data=part)) for part in parts)
    wire += client.send(h11.EndOfMessage(headers=[("X-Sum", "1")]))
    body = Body(None, chunked=True)
    sent = wire + after
    taken = 0
    for start in range(0, len(sent), portion):
        piece = sent[start : start + portion]
        end = body.take(piece, 0)
        taken += end
        if body.done:
            break
    assert body.done
    assert taken == len(wire)
    assert body.content == sum(map(len, parts))


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("portion", [1, 1000])
def test_a_malformed_body_is_noticed_in_any_portions(name: str, portion: int) -> None:
    body, data = Body(None, chunked=True), BODIES[name]
    with pytest.raises(MalformedError):  # noqa: PT012 - any portion may be the one
        for start in range(0, len(data), portion):
            body.take(data[start : start + portion], 0)


PIECES = [
    b"GET", b"POST", b" ", b"  ", b"/", b"/a", b"*", b"http://a.test/", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n", b"\r\n",
    b"\n", b"\r", b"\t", b"Host: a.test", b"Host: b.test", b"Content-Length: 3", b"Content-Length: 03", b"Content-Length:",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding:chunked", b"transfer-encoding: Chunked", b" chunked", b":", b",", b"X: y",
    b"\x00", b"\x0b", b"\xa0", b"abc",
]  # fmt: skip
GOOD = [b"GET", b" ", b"/", b" HTTP/1.1", b"\r\n", b"Host: a.test", b"\r\n"]


@settings(max_examples=400)
@given(st.data())
def test_what_is_let_through_h11_reads_in_the_same_way_or_not_at_all(data) -> None:
    pieces = list(GOOD)
    for piece in data.draw(st.lists(st.sampled_from(PIECES), max_size=6)):
        pieces.insert(data.draw(st.integers(0, len(pieces))), piece)
    sent = b"".join(pieces) + b"\r\n"
    try:
        head = parse_request(sent)
    except MalformedError:
        return
    if head is None:
        return
    server = h11.Connection(h11.SERVER)
    try:
        server.receive_data(sent[: head.size])
        event = server.next_event()
    except h11.RemoteProtocolError:
        return
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (head.method, head.target)
    assert [(n.lower(), v) for n, v in head.fields()] == [(bytes(n), bytes(v)) for n, v in event.headers]
    framing = dict(event.headers)
    assert head.chunked is (b"transfer-encoding" in framing)
    assert head.length == int(framing.get(b"content-length", 0))


def test_there_are_enough_cases() -> None:
    assert len(CASES) + len(BODIES) >= 60
