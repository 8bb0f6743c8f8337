"""What a hostile or broken peer says: refused with the code of RFC 9113, or passed on byte for byte. Nothing else.

Where anything is governed. Bodies of requests are never parsed, so what a body claims about itself passes.
"""

import sys
import tracemalloc

import msgspec
import pytest

from lab.http2_pair import Requests, Timers
from weir_sidecar.contract.request import RequestDecision, RequestError
from weir_sidecar.core.http2_relay import HTTP2Relay
from weir_sidecar.core.http_policy import ALLOWED, Edits, RequestVerdict
from weir_sidecar.wire import http2
from weir_sidecar.wire.hpack import encode
from weir_sidecar.wire.http2 import ErrorCode, frame

MALFORMED = ErrorCode.PROTOCOL_ERROR
BASE = ((b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"a.test"))
POST = ((b":method", b"POST"), *BASE[1:])


class Goaway(msgspec.Struct, frozen=True):
    code: ErrorCode


class Reset(msgspec.Struct, frozen=True):
    """Of stream 1; the upstream hears nothing of it."""

    code: ErrorCode


PASSED = None


def request(*fields: tuple[bytes, bytes], end: bool = True, stream: int = 1) -> bytes:
    return http2.headers_frames(http2.END_STREAM if end else 0, stream, encode(fields))


def without(name: bytes) -> bytes:
    return request(*(field for field in BASE if field[0] != name))


def changed(name: bytes, value: bytes) -> bytes:
    return request(*((found, value if found == name else old) for found, old in BASE))


def more(*fields: tuple[bytes, bytes]) -> bytes:
    return request(*BASE, *fields)


BOMB_ENTRY = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000
CASES: dict[str, tuple[bytes, Goaway | Reset | None]] = {
    # Pseudo-header fields (section 8.3).
    "no method": (without(b":method"), Reset(MALFORMED)),
    "no scheme": (without(b":scheme"), Reset(MALFORMED)),
    "no path": (without(b":path"), Reset(MALFORMED)),
    "an empty path": (changed(b":path", b""), Reset(MALFORMED)),
    "an empty method": (changed(b":method", b""), Reset(MALFORMED)),
    "an empty scheme": (changed(b":scheme", b""), Reset(MALFORMED)),
    "an empty authority": (changed(b":authority", b""), Reset(MALFORMED)),
    "a path twice": (request(*BASE, (b":path", b"/admin")), Reset(MALFORMED)),
    "a method twice": (request((b":method", b"GET"), *POST), Reset(MALFORMED)),
    "an authority twice": (request(*BASE, (b":authority", b"b.test")), Reset(MALFORMED)),
    "an unknown pseudo-header field": (request(*BASE, (b":admin", b"1")), Reset(MALFORMED)),
    "a status in a request": (request(*BASE, (b":status", b"200")), Reset(MALFORMED)),
    "a pseudo-header field after others": (request(*BASE[:3], (b"x", b"y"), BASE[3]), Reset(MALFORMED)),
    "a path of another host": (changed(b":path", b"https://b.test/"), Reset(MALFORMED)),
    "a path with a space": (changed(b":path", b"/a HTTP/1.1"), Reset(MALFORMED)),
    "a path with a line end": (changed(b":path", b"/\r\nx: y"), Reset(MALFORMED)),
    "a path with a fragment": (changed(b":path", b"/#/../b"), Reset(MALFORMED)),
    "a star that is not of OPTIONS": (changed(b":path", b"*"), Reset(MALFORMED)),
    "a star of OPTIONS": (
        request((b":method", b"OPTIONS"), BASE[1], (b":path", b"*"), BASE[3]),
        PASSED,
    ),
    "a method that is no token": (changed(b":method", b"GET /x"), Reset(MALFORMED)),
    "an authority with a user": (changed(b":authority", b"a.test@b.test"), Reset(MALFORMED)),
    "an authority with a path": (changed(b":authority", b"a.test/b"), Reset(MALFORMED)),
    "CONNECT with a path": (changed(b":method", b"CONNECT"), Reset(MALFORMED)),
    "CONNECT without an authority": (request((b":method", b"CONNECT")), Reset(MALFORMED)),
    "CONNECT": (request((b":method", b"CONNECT"), (b":authority", b"a.test:443"), end=False), PASSED),
    "extended CONNECT": (
        request((b":method", b"CONNECT"), (b":protocol", b"websocket"), *BASE[1:], end=False),
        PASSED,
    ),
    "a protocol without CONNECT": (request((b":protocol", b"websocket"), *BASE), Reset(MALFORMED)),
    # Fields (section 8.2).
    "an upper case name": (more((b"X-Upper", b"y")), Reset(MALFORMED)),
    "an empty name": (more((b"", b"y")), Reset(MALFORMED)),
    "a name with a space": (more((b"x y", b"z")), Reset(MALFORMED)),
    "a name with a colon": (more((b"x:y", b"z")), Reset(MALFORMED)),
    "a name with a line end": (more((b"x\r\ny", b"z")), Reset(MALFORMED)),
    "a value with a line end": (more((b"x", b"y\r\nhost: b.test")), Reset(MALFORMED)),
    "a value with NUL": (more((b"x", b"y\0z")), Reset(MALFORMED)),
    "connection": (more((b"connection", b"close")), Reset(MALFORMED)),
    "transfer-encoding": (more((b"transfer-encoding", b"chunked")), Reset(MALFORMED)),
    "upgrade": (more((b"upgrade", b"h2c")), Reset(MALFORMED)),
    "keep-alive": (more((b"keep-alive", b"1")), Reset(MALFORMED)),
    "proxy-connection": (more((b"proxy-connection", b"x")), Reset(MALFORMED)),
    "te: gzip": (more((b"te", b"gzip")), Reset(MALFORMED)),
    "te: trailers": (more((b"te", b"trailers")), PASSED),
    "a host of another name": (more((b"host", b"b.test")), Reset(MALFORMED)),
    "a host of the same name": (more((b"host", b"A.test")), PASSED),
    "two hosts": (more((b"host", b"a.test"), (b"host", b"a.test")), Reset(MALFORMED)),
    "a length that is not the body's": (
        request(*POST, (b"content-length", b"5"), end=False) + frame(http2.DATA, http2.END_STREAM, 1, b"four"),
        PASSED,
    ),
    "two lengths": (request(*POST, (b"content-length", b"1"), (b"content-length", b"2"), end=False), PASSED),
    # Streams (section 5.1).
    "an even stream": (request(*BASE, stream=2), Goaway(MALFORMED)),
    "HEADERS after the end": (request(*BASE) + request(*BASE), Goaway(ErrorCode.STREAM_CLOSED)),
    "trailers that do not end": (request(*POST, end=False) + request((b"x", b"y"), end=False), Reset(MALFORMED)),
    "trailers with a path": (request(*POST, end=False) + request((b":path", b"/b")), Reset(MALFORMED)),
    "DATA on a stream that nobody opened": (frame(http2.DATA, 0, 7, b"x"), PASSED),
    "a window increment of 0": (http2.window_update(0, 0), PASSED),
    "a window of more than 2^31-1": (http2.window_update(0, 2**31 - 1) * 2, PASSED),
    "an initial window of 2^32-1": (http2.settings_frame([(4, 2**32 - 1)]), PASSED),
    "a frame size of 1": (http2.settings_frame([(5, 1)]), PASSED),
    "an unknown setting": (http2.settings_frame([(0x99, 7)]), PASSED),
    "an unknown frame": (frame(0xBE, 0xFF, 9, b"what"), PASSED),
    "PRIORITY of a stream on itself": (frame(http2.PRIORITY, 0, 1, b"\0\0\0\1\0"), PASSED),
    "a promise of the client's": (http2.push_promise_frames(1, 2, encode(BASE)), Goaway(MALFORMED)),
    # Frames (section 4); tests/unit/wire/test_http2.py has more.
    "a frame that is too large": (b"\xff\xff\xff\0\0\0\0\0\1", Goaway(ErrorCode.FRAME_SIZE_ERROR)),
    "a flood of CONTINUATIONs": (
        frame(http2.HEADERS, 0, 1) + frame(http2.CONTINUATION, 0, 1) * 1000,
        Goaway(ErrorCode.ENHANCE_YOUR_CALM),
    ),
    "a flood of large CONTINUATIONs": (
        frame(http2.HEADERS, 0, 1) + frame(http2.CONTINUATION, 0, 1, bytes(16384)) * 20,
        Goaway(ErrorCode.ENHANCE_YOUR_CALM),
    ),
    "settings that nobody acknowledges": (http2.settings_frame([]) * 100, Goaway(ErrorCode.ENHANCE_YOUR_CALM)),
    # HPACK.
    "an index of nothing": (frame(http2.HEADERS, 5, 1, b"\xff\x00"), Goaway(ErrorCode.COMPRESSION_ERROR)),
    "a table that is too large": (frame(http2.HEADERS, 5, 1, b"\x3f\xe2\xff\x07"), Goaway(ErrorCode.COMPRESSION_ERROR)),
    "a bomb of one entry": (
        frame(http2.HEADERS, 5, 1, BOMB_ENTRY + b"\xbe" * 100),
        Goaway(ErrorCode.ENHANCE_YOUR_CALM),
    ),
}


def begun() -> tuple[HTTP2Relay, Requests]:
    requests = Requests()
    relay = HTTP2Relay(requests, Timers(), lambda: None)
    relay.from_client(http2.PREFACE + http2.settings_frame([]))
    relay.from_upstream(http2.settings_frame([]) + frame(http2.SETTINGS, http2.ACK, 0))
    relay.for_upstream()
    relay.for_client()
    return relay, requests


@pytest.mark.parametrize("size", [1, sys.maxsize])
@pytest.mark.parametrize("case", CASES)
def test_a_client(case, size):
    data, outcome = CASES[case]
    relay, requests = begun()
    up = down = b""
    for at in range(0, len(data), size):
        relay.from_client(data[at : at + size])
        up += relay.for_upstream()
        down += relay.for_client()
    if outcome is None:
        assert (up, down, relay.failed) == (data, b"", None)
    elif isinstance(outcome, Goaway):
        assert relay.failed is outcome.code
        assert bytes([http2.GOAWAY, 0, 0, 0, 0, 0]) in down
        assert up.endswith(http2.goaway(0, ErrorCode.INTERNAL_ERROR))
    else:
        assert relay.failed is None
        assert down == http2.rst_stream(1, outcome.code)
        assert data not in up, "or not all of it"
        assert requests.all[1].ends == [(None, RequestError.MALFORMED_REQUEST)]
    relay.close(RequestError.CLIENT_GONE)
    assert all(len(told.ends) == 1 for told in requests.all.values())


UPSTREAM: dict[str, tuple[bytes, Goaway | None]] = {
    "an answer without a status": (http2.headers_frames(1, 1, encode([(b"x", b"y")])), PASSED),
    "an answer with an upper case name": (
        http2.headers_frames(1, 1, encode([(b":status", b"200"), (b"X", b"y")])),
        PASSED,
    ),
    "an answer to what nobody asked": (http2.headers_frames(1, 9, encode([(b":status", b"200")])), PASSED),
    "DATA that nobody asked for": (frame(http2.DATA, 0, 9, b"x"), PASSED),
    "more DATA than the window": (frame(http2.DATA, 0, 1, bytes(16384)) * 5, PASSED),
    "HPACK that cannot be read": (frame(http2.HEADERS, 5, 1, b"\x80"), Goaway(ErrorCode.COMPRESSION_ERROR)),
    "a bomb": (frame(http2.HEADERS, 5, 1, BOMB_ENTRY + b"\xbe" * 100), Goaway(ErrorCode.ENHANCE_YOUR_CALM)),
    "a flood of CONTINUATIONs": (
        frame(http2.HEADERS, 0, 1) + frame(http2.CONTINUATION, 0, 1) * 1000,
        Goaway(ErrorCode.ENHANCE_YOUR_CALM),
    ),
    "a frame that is too large": (b"\xff\xff\xff\0\0\0\0\0\1", Goaway(ErrorCode.FRAME_SIZE_ERROR)),
}


@pytest.mark.parametrize("case", UPSTREAM)
def test_an_upstream(case):
    data, outcome = UPSTREAM[case]
    relay, _ = begun()
    relay.from_client(request(*BASE))
    relay.for_upstream()
    relay.from_upstream(data)
    if outcome is None:
        assert (relay.for_client(), relay.failed) == (data, None)
    else:
        assert relay.failed is outcome.code
        assert not relay.client_failed
        assert http2.goaway(1, ErrorCode.INTERNAL_ERROR) in relay.for_client()


def test_rapid_reset_is_passed_on_told_and_forgotten():
    """It is the upstream's to count them (CVE-2023-44487); here nothing is left of one."""
    relay, requests = begun()
    tracemalloc.start()
    for stream in range(1, 20001, 2):
        both = request(*BASE, stream=stream) + http2.rst_stream(stream, ErrorCode.CANCEL)
        relay.from_client(both)
        assert relay.for_upstream() == both
        assert requests.all.pop(stream).ends == [(None, RequestError.CLIENT_GONE)]
    assert tracemalloc.get_traced_memory()[0] < 1 << 16
    tracemalloc.stop()


def attack(relay: HTTP2Relay) -> None:
    """As many open requests as it takes, each as large as it may be, nearly all of it indexed."""
    for number in range(3000):
        entry = b"\x40\x04%04d" % (number % 10000) + b"\x7f\xa1\x1e" + b"v" * 4000
        relay.from_client(http2.headers_frames(0, 2 * number + 1, encode(POST) + entry + b"\xbe" * 50))
        relay.for_upstream()
        relay.for_client()
        if not relay.reads_client:
            break


@pytest.mark.parametrize(
    "verdict",
    [
        ALLOWED,
        RequestVerdict(RequestDecision.ALLOW, delay=3600.0),
        RequestVerdict(RequestDecision.DENY, delay=3600.0),
        RequestVerdict(RequestDecision.DENY, status=403, body=b"no"),
    ],
    ids=["open", "delayed", "to be denied", "denied"],
)
def test_memory_is_bounded_whatever_is_opened(verdict):
    relay, requests = begun()
    requests.judge = lambda _: verdict
    tracemalloc.start()
    attack(relay)
    for told in requests.all.values():
        if told.ends:
            told.facts = None  # the test keeps what the sidecar would not
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 4 << 20, f"{held} bytes"


def test_blocks_that_grow_when_they_are_written_anew_end_the_connection():
    relay, requests = begun()
    requests.judge = lambda _: RequestVerdict(RequestDecision.ALLOW, request_edits=Edits(frozenset(), ((b"x", b"y"),)))
    relay.from_client(http2.headers_frames(1, 1, encode(BASE) + BOMB_ENTRY))
    relay.for_upstream()
    relay.from_client(b"".join(http2.headers_frames(1, n, encode(BASE) + b"\xbe" * 50) for n in range(3, 203, 2)))
    assert relay.failed is ErrorCode.ENHANCE_YOUR_CALM
    assert len(relay.for_upstream()) < 2 << 20
