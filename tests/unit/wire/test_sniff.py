import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weir_sidecar.wire.clienthello import NeedMore
from weir_sidecar.wire.sniff import MAX_HEAD, Kind, http1_host, sniff

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST = b"GET /a?b=c HTTP/1.1\r\nHost: www.example.com\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x16\x03", Kind.TLS),
        (b"\x16\x03\x01\x02\x00\x01", Kind.TLS),
        (PREFACE, Kind.HTTP2),
        (PREFACE + bytes(9), Kind.HTTP2),
        (REQUEST, Kind.HTTP1),
        (b"GET / HTTP/1.0\r\n", Kind.HTTP1),
        (b"GET / HTTP/1.1\n", Kind.HTTP1),
        (b"OPTIONS * HTTP/1.1\r\n", Kind.HTTP1),
        (b"CONNECT example.com:443 HTTP/1.1\r\n", Kind.HTTP1),
        (b"CONNECT [::1]:443 HTTP/1.1\r\n", Kind.HTTP1),
        (b"GET http://example.com/ HTTP/1.1\r\n", Kind.HTTP1),
        (b"M-SEARCH * HTTP/1.1\r\n", Kind.HTTP1),
        (b"UPDATEREDIRECTREF /a HTTP/1.1\r\n", Kind.HTTP1),
        (b"!#$%&'*+-.^_`|~09azAZ / HTTP/1.1\r\n", Kind.HTTP1),
        (b"PRIX / HTTP/1.1\r\n", Kind.HTTP1),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", Kind.HTTP1),
        (b"GET  /  HTTP/1.1\r\n", Kind.HTTP1),
        (b"GET /caf\xc3\xa9 HTTP/1.1\r\n", Kind.HTTP1),
        (b"GET /" + b"a" * 60000 + b" HTTP/1.1\r\n", Kind.HTTP1),
        (b"\x16\x02", Kind.OPAQUE),
        (b"\x80\x2e\x01\x00\x02", Kind.OPAQUE),  # an SSLv2 hello
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", Kind.OPAQUE),
        (b"GET /\r\n", Kind.OPAQUE),  # HTTP/0.9
        (b"GET / HTTP/2.0\r\n", Kind.OPAQUE),
        (b"GET / HTTP/1\r\n", Kind.OPAQUE),
        (b"GET /a b HTTP/1.1\r\n", Kind.OPAQUE),
        (b"GET /\0 HTTP/1.1\r\n", Kind.OPAQUE),
        (b"G@T / HTTP/1.1\r\n", Kind.OPAQUE),
        (b"PRI * HTTP/2.0\r\n\r\nXX", Kind.OPAQUE),
        (b"OPTIONS rtsp://example.com/ RTSP/1.0\r\n", Kind.OPAQUE),
        (b"NICK somebody\r\nUSER", Kind.OPAQUE),
        (b"EHLO client.example\r\n", Kind.OPAQUE),
        (b"get key\r\n", Kind.OPAQUE),
        (b"CONNECT {}\r\n", Kind.OPAQUE),  # NATS
        (b"PROXY TCP4 10.0.0.1", Kind.OPAQUE),
        (b"*1\r\n$4\r\nPING\r\n", Kind.OPAQUE),  # Redis
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Kind.OPAQUE),  # PostgreSQL
        (b"0\x0c\x02\x01", Kind.OPAQUE),  # LDAP
        (b"<?xml", Kind.OPAQUE),
    ],
)
def test_what_it_is(data, kind):
    assert sniff(data) is kind
    assert sniff(memoryview(data)) is kind


@pytest.mark.parametrize(
    ("data", "final"),
    [
        (b"\x16\x03", Kind.TLS),
        (PREFACE, Kind.HTTP2),
        (b"PATCH  /x HTTP/1.", Kind.HTTP1),
        (b"\r\nGET / HTTP/1.", Kind.HTTP1),
    ],
)
def test_every_prefix_needs_more(data, final):
    assert [sniff(data[:size]) for size in range(len(data))] == [Kind.NEED_MORE] * len(data)
    assert sniff(data) is final


def test_a_token_without_a_space_ends():
    assert sniff(b"a" * 32) is Kind.NEED_MORE
    assert sniff(b"a" * 33) is Kind.OPAQUE


@pytest.mark.parametrize("beginning", [b"\r\n", b"GET ", b"GET /", b"GET / "])
def test_waiting_ends_at_the_limit(beginning):
    fill = beginning + beginning[-1:] * MAX_HEAD
    assert sniff(fill[: MAX_HEAD - 1]) is Kind.NEED_MORE
    assert sniff(fill[:MAX_HEAD]) is Kind.OPAQUE
    assert sniff(fill) is Kind.OPAQUE


@given(
    st.binary(max_size=60) | st.sampled_from([REQUEST, PREFACE, b"\x16\x03\x01"]),
    st.binary(max_size=60),
)
@example(b"GET / HTTP/1.", b"x")
def test_only_need_more_may_change(data, rest):
    kind = sniff(data)
    assert kind is Kind.NEED_MORE or sniff(data + rest) is kind


@given(st.from_regex(r"\A[!#-'*+.^_`|~0-9A-Za-z-]{1,32} [!-~]{1,80} HTTP/1\.[01]\r\n\Z"), st.data())
def test_any_method_and_target(line, data):
    encoded = line.encode()
    assert sniff(encoded) is Kind.HTTP1
    assert sniff(encoded[: data.draw(st.integers(0, len(encoded)))]) in (Kind.NEED_MORE, Kind.HTTP1)


# The host.


def request(*fields, line=b"GET / HTTP/1.1", end=b"\r\n"):
    return end.join([line, *fields, b"", b""])


@pytest.mark.parametrize(
    ("data", "host"),
    [
        (REQUEST, "www.example.com"),
        (REQUEST + b"Host: other.example\r\n\r\n", "www.example.com"),
        (request(b"Host: Example.COM:8080"), "example.com"),
        (request(b"hOsT:example.com."), "example.com"),
        (request(b"Host: \t example.com \t"), "example.com"),
        (request(b"Host: example.com:"), "example.com"),
        (request(b"Accept: */*", b"Host: example.com", b"X-Host: other.example"), "example.com"),
        (request(b"Host: example.com", end=b"\n"), "example.com"),
        (b"\r\n\n" + request(b"Host: example.com"), "example.com"),
        (request(b"Host: example.com\r\nA: b\n\n"), "example.com"),
        (request(b"Host:\r\n example.com"), "example.com"),
        (request(b"Host: example.com", b"Host: EXAMPLE.com:80"), "example.com"),
        (request(line=b"GET http://example.com:80/a HTTP/1.1"), "example.com"),
        (request(line=b"GET http://u:p@example.com?x=@y HTTP/1.1"), "example.com"),
        (request(b"Host: example.com", line=b"GET HTTP://Example.com HTTP/1.1"), "example.com"),
        (request(b"Host: example.com:443", line=b"CONNECT example.com:443 HTTP/1.1"), "example.com"),
        (request(b"Host: example.com", line=b"GET /http://other.example/ HTTP/1.1"), "example.com"),
        (request(), None),
        (request(b"Host:"), None),
        (request(b"Host: 10.0.0.1:80"), None),
        (request(b"Host: [::1]:80"), None),
        (request(b"Host: exa mple.com"), None),
        (request(b"Host: a@example.com"), None),
        (request(b"Host: example.com:http"), None),
        (request(b"Host: a.example, b.example"), None),
        (request(b"Host: a.example\r\n b.example"), None),
        (request(b"Host: a.example", b"Host: b.example"), None),
        (request(b"Host: a.example", b"Host : b.example"), None),
        (request(b"Host: a.example", b"Host:"), None),
        (request(b"Host: a.example", b"Host: 10.0.0.1"), None),
        (request(b"Host: a.example", line=b"GET http://b.example/ HTTP/1.1"), None),
        (request(b"Host: a.example", line=b"CONNECT b.example:443 HTTP/1.1"), None),
        (b"\r\n\r\n\0\n\n", None),
    ],
)
def test_host(data, host):
    assert http1_host(data) == host
    assert http1_host(memoryview(data)) == host


@given(st.integers(0, len(REQUEST) - 1))
def test_the_whole_head_is_needed(size):
    assert http1_host(REQUEST[:size]) == NeedMore(size + 1)


def test_a_head_longer_than_64_kib_names_nothing():
    head = request(b"Host: example.com", b"A: ".ljust(MAX_HEAD, b"a"))
    assert http1_host(head[: MAX_HEAD - 1]) == NeedMore(MAX_HEAD)
    assert http1_host(head[:MAX_HEAD]) is None
    assert http1_host(head) is None


@given(st.binary(max_size=200))
def test_the_host_of_anything(data):
    answer = http1_host(b"GET / HTTP/1.1\r\n" + data)
    if isinstance(answer, NeedMore):
        assert len(data) + 16 < answer.total <= MAX_HEAD
    else:
        assert answer is None or answer == answer.lower().strip(".")
