"""The admin endpoint's request parser: what it reads, what it refuses, and that nothing else can come out of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.wire.admin_request import MAX_BYTES, AdminRequest, BadRequest, Method, NeedMore, parse

GET = b"GET /flows?last=5&follow=1 HTTP/1.1\r\nHost: LocalHost:15802\r\nAccept: */*\r\n\r\n"
POST = b'POST /trust/pin HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n{"host":"a"}'


def test_get_with_a_query():
    assert parse(GET) == AdminRequest(Method.GET, "/flows", {"last": "5", "follow": "1"}, "localhost", b"")


def test_post_with_a_body():
    assert parse(POST) == AdminRequest(Method.POST, "/trust/pin", {}, "localhost", b'{"host":"a"}')


@pytest.mark.parametrize("whole", [GET, POST])
def test_every_beginning_needs_more_and_never_more_than_there_is(whole):
    for end in range(len(whole)):
        found = parse(whole[:end])
        assert isinstance(found, NeedMore)
        assert end < found.total <= len(whole)


def test_the_wanted_length_is_known_with_the_head():
    assert parse(POST[:-5]) == NeedMore(len(POST))


@pytest.mark.parametrize(
    ("host", "name"),
    [("127.0.0.1:1", "127.0.0.1"), ("[::1]:15802", "[::1]"), ("[::1]", "[::1]"), ("evil.example", "evil.example")],
)
def test_the_host_without_its_port(host, name):
    assert parse(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).host == name


def test_no_host_is_no_host():
    assert parse(b"GET / HTTP/1.0\r\n\r\n").host is None


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET http://localhost/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: localhost\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost, evil\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost@evil\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 65536\r\n\r\n", 413),
        (b"GET /" + b"a" * MAX_BYTES, 413),
        (b"GET /" + b"a" * 9000, 431),
    ],
)
def test_what_is_refused(request_bytes, status):
    with pytest.raises(BadRequest) as raised:
        parse(request_bytes)
    assert raised.value.status == status


mutated = st.builds(
    lambda whole, at, drop, junk: whole[:at] + junk + whole[at + drop :],
    st.sampled_from([GET, POST]), st.integers(0, 80), st.integers(0, 8), st.binary(max_size=8),
)  # fmt: skip


@given(st.one_of(st.binary(max_size=200), mutated))
def test_only_declared_outcomes(data):
    try:
        found = parse(data)
    except BadRequest:
        return
    if isinstance(found, NeedMore):
        assert found.total > len(data)
    else:
        assert found.path.startswith("/")
        assert data.count(found.body)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("line", [b"a:" + b" " * 8000 + b"\x01", b"a: " + b"b \t" * 2600 + b"\x7f", b"a" * 8000])
def test_what_is_no_field_is_found_out_in_one_pass(line):
    """An expression that tries every division of these would take hours, and the sidecar would serve nobody meanwhile."""
    with pytest.raises(BadRequest):
        parse(b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n")


def test_white_space_around_a_value_is_no_part_of_it():
    assert parse(b"GET / HTTP/1.1\r\nHost:\t localhost \t\r\nA: \r\n\r\n").host == "localhost"
