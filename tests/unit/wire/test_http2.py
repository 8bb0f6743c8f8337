"""The frame walk beside hyperframe, whole and in any pieces; and what it refuses, with the code of RFC 9113."""

import pytest
from hyperframe import frame as hf
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.wire import http2
from weir_sidecar.wire.http2 import ErrorCode
from weir_sidecar.wire.http2_walk import FrameWalk

STREAMS = st.integers(1, 2**31 - 1)


def head(kind: int, flags: int, stream: int, length: int) -> bytes:
    return length.to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4)


@st.composite
def data_frames(draw):
    pad = draw(st.none() | st.integers(0, 20))
    return hf.DataFrame(
        draw(st.sampled_from((1, 3)) | STREAMS),
        draw(st.binary(max_size=60)),
        flags=["PADDED"] if pad is not None else [],
        pad_length=pad or 0,
    )


@st.composite
def header_frames(draw):
    flags = draw(st.sets(st.sampled_from(["PADDED", "PRIORITY", "END_STREAM"])))
    stream = draw(STREAMS)
    pad = draw(st.integers(0, 20)) if "PADDED" in flags else 0
    parts = draw(st.lists(st.binary(max_size=20), min_size=1, max_size=4))
    first = hf.HeadersFrame(stream, parts[0], depends_on=3, stream_weight=7, flags=flags, pad_length=pad)
    rest = [hf.ContinuationFrame(stream, part) for part in parts[1:]]
    [first, *rest][-1].flags.add("END_HEADERS")
    return [first, *rest]


OTHERS = st.one_of(
    st.builds(lambda s, c: hf.RstStreamFrame(s, error_code=c), STREAMS, st.integers(0, 13)),
    st.builds(lambda v: hf.SettingsFrame(0, settings=v), st.dictionaries(st.integers(1, 8), st.integers(0, 2**32 - 1))),
    st.builds(lambda d: hf.PingFrame(0, opaque_data=d), st.binary(min_size=8, max_size=8)),
    st.builds(lambda s, d: hf.GoAwayFrame(0, last_stream_id=s, additional_data=d), STREAMS, st.binary(max_size=20)),
    st.builds(
        lambda s, i: hf.WindowUpdateFrame(s, window_increment=i), st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1)
    ),
    st.builds(lambda s, d: hf.PriorityFrame(s, depends_on=d, stream_weight=1), STREAMS, STREAMS),
    st.builds(lambda s, b: hf.AltSvcFrame(s, origin=b"", field=b), STREAMS, st.binary(max_size=40)),
    data_frames(),
)
SEQUENCES = st.lists(st.one_of(OTHERS.map(lambda one: [one]), header_frames()), max_size=8)


def fragments(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


@given(SEQUENCES, st.lists(st.integers(0, 10**6), max_size=30), st.booleans(), st.booleans())
def test_tells_every_byte_once_and_every_frame_for_what_it_is(groups, cuts, client, joins):
    data = b"".join(frame.serialize() for group in groups for frame in group)
    if client:
        data = http2.PREFACE + data
    walk = FrameWalk(client=client)
    walk.joins = joins
    told = bytearray()
    seen: list[tuple[int, int, int]] = []
    blocks: list[bytes] = []
    for part in fragments(data, cuts):
        at = 0
        for piece in walk.feed(part):
            assert piece.start == at, "gapless"
            at = piece.end
            told += walk.buffer[piece.start : piece.end]
            if piece.first and piece.type != http2.PREFACE_PIECE:
                seen.append((piece.type, piece.stream, 0))
            if piece.type in {http2.DATA, hf.AltSvcFrame.type}:
                kind, stream, length = seen.pop()
                parts = [end - start for start, end in http2.payloads(walk.buffer, piece)]
                assert sum(parts) == piece.length
                assert len(parts) == 1 or (joins and not piece.flags and piece.type == http2.DATA)
                seen += [(kind, stream, length + parts[0]), *((kind, stream, part) for part in parts[1:])]
            if piece.type == http2.HEADERS:
                blocks.append(http2.header_block(walk.buffer, piece).fragment)
        assert walk.error is None
    assert bytes(told) == data
    body = {http2.DATA, hf.AltSvcFrame.type}
    assert seen == [
        (group[0].type, group[0].stream_id, group[0].body_len if group[0].type in body else 0) for group in groups
    ]
    assert blocks == [b"".join(f.data for f in group) for group in groups if group[0].type == http2.HEADERS]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=20))
def test_noise_ends_in_an_error_or_waits_and_says_the_same_in_any_pieces(noise, cuts):
    whole, parts = FrameWalk(client=False), FrameWalk(client=False)
    one = b"".join(whole.buffer[p.start : p.end] for p in whole.feed(noise))
    many = b""
    for part in fragments(noise, cuts):
        if parts.error is None:
            many += b"".join(parts.buffer[p.start : p.end] for p in parts.feed(part))
    assert many == one
    assert (parts.error and parts.error.code) == (whole.error and whole.error.code)


REFUSED = {
    "a frame larger than allowed": (head(0, 0, 1, 16385), ErrorCode.FRAME_SIZE_ERROR),
    "HEADERS larger than allowed": (head(1, 4, 1, 16385), ErrorCode.FRAME_SIZE_ERROR),
    "an unknown frame larger than allowed": (head(0x42, 0, 1, 16385), ErrorCode.FRAME_SIZE_ERROR),
    "DATA on stream 0": (head(0, 0, 0, 1) + b"x", ErrorCode.PROTOCOL_ERROR),
    "HEADERS on stream 0": (head(1, 4, 0, 1) + b"\x82", ErrorCode.PROTOCOL_ERROR),
    "SETTINGS on a stream": (head(4, 0, 1, 0), ErrorCode.PROTOCOL_ERROR),
    "PING on a stream": (head(6, 0, 1, 8) + bytes(8), ErrorCode.PROTOCOL_ERROR),
    "GOAWAY on a stream": (head(7, 0, 1, 8) + bytes(8), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on stream 0": (head(3, 0, 0, 4) + bytes(4), ErrorCode.PROTOCOL_ERROR),
    "PRIORITY on stream 0": (head(2, 0, 0, 5) + bytes(5), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS of 5 bytes": (head(4, 0, 0, 5) + bytes(5), ErrorCode.FRAME_SIZE_ERROR),
    "an acknowledgement with settings": (head(4, 1, 0, 6) + bytes(6), ErrorCode.FRAME_SIZE_ERROR),
    "PING of 7 bytes": (head(6, 0, 0, 7) + bytes(7), ErrorCode.FRAME_SIZE_ERROR),
    "RST_STREAM of 5 bytes": (head(3, 0, 1, 5) + bytes(5), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of 3 bytes": (head(8, 0, 1, 3) + bytes(3), ErrorCode.FRAME_SIZE_ERROR),
    "PRIORITY of 4 bytes": (head(2, 0, 1, 4) + bytes(4), ErrorCode.FRAME_SIZE_ERROR),
    "GOAWAY of 7 bytes": (head(7, 0, 0, 7) + bytes(7), ErrorCode.FRAME_SIZE_ERROR),
    "CONTINUATION of nothing": (head(9, 4, 1, 1) + b"\x82", ErrorCode.PROTOCOL_ERROR),
    "DATA inside a header block": (head(1, 0, 1, 1) + b"\x82" + head(0, 0, 1, 1), ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION of another stream": (head(1, 0, 1, 1) + b"\x82" + head(9, 4, 3, 1), ErrorCode.PROTOCOL_ERROR),
    "PING inside a header block": (head(1, 0, 1, 1) + b"\x82" + head(6, 0, 0, 8), ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION larger than allowed": (
        head(1, 0, 1, 1) + b"\x82" + head(9, 4, 1, 16385),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "a flood of empty CONTINUATIONs": (head(1, 0, 1, 0) + head(9, 0, 1, 0) * 65, ErrorCode.ENHANCE_YOUR_CALM),
    "a block of too many bytes": (
        head(1, 0, 1, 16384) + bytes(16384) + (head(9, 0, 1, 16384) + bytes(16384)) * 7,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "more padding than DATA": (head(0, 8, 1, 2) + b"\x02x", ErrorCode.PROTOCOL_ERROR),
    "padded DATA of no bytes": (head(0, 8, 1, 0), ErrorCode.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    data, code = REFUSED[case]
    walk = FrameWalk(client=False)
    walk.feed(data)
    assert walk.error is not None
    assert walk.error.code is code


def test_what_comes_before_an_error_is_told():
    walk = FrameWalk(client=False)
    assert len(walk.feed(head(4, 0, 0, 0) + head(9, 4, 1, 0))) == 1
    assert walk.error is not None


def test_bulk_of_one_stream_is_one_piece_and_what_is_too_large_ends_it():
    walk = FrameWalk(client=False)
    frames = [http2.frame(http2.DATA, 0, 1, bytes(size)) for size in (10, 0, 20, 30)]
    end = http2.frame(http2.DATA, http2.END_STREAM, 1, b"end")
    other = http2.frame(http2.DATA, 0, 3, b"other")
    (first,) = walk.feed(b"".join(frames)[:-5])
    assert (first.length, first.last, walk.rest, walk.open_stream) == (55, False, 5, 1)
    rest, last, third = walk.feed(frames[-1][-5:] + frames[0] + end + other)
    assert (rest.first, rest.before, rest.length, rest.begun) == (False, 5, 15, 10)
    assert (last.length, last.flags, third.stream) == (3, http2.END_STREAM, 3)
    (piece,) = walk.feed(other + http2.frame(http2.DATA, 0, 3, bytes(16385)))
    assert piece.end == len(other)
    assert walk.error is not None
    assert walk.error.code is ErrorCode.FRAME_SIZE_ERROR


def test_a_client_begins_with_the_preface():
    walk = FrameWalk(client=True)
    walk.feed(b"PRI * HTTP/2.0\r\n\r\nXX")
    assert walk.error is not None


@pytest.mark.parametrize(("flags", "payload"), [(0x0C, b""), (0x0C, b"\x05abc"), (0x24, b"abcd"), (0x2C, b"\x01abcde")])
def test_a_header_block_that_is_too_short_for_its_flags(flags, payload):
    walk = FrameWalk(client=False)
    (piece,) = walk.feed(head(1, flags, 1, len(payload)) + payload)
    with pytest.raises(http2.FrameError):
        http2.header_block(walk.buffer, piece)


def test_a_block_of_one_byte_frames_costs_no_more_than_its_bytes():
    """What is held is looked at again only when there is more to be told."""
    walk = FrameWalk(client=False)
    data = head(1, 4, 1, 16384) + bytes(16384)
    looks = 0
    for byte in data:
        before = walk.buffer
        walk.feed(bytes([byte]))
        looks += walk.buffer is not before
    assert looks < 20


@given(STREAMS, st.binary(max_size=100), st.booleans(), st.integers(10, 40))
def test_what_it_writes_hyperframe_reads(stream, block, end, limit):
    data = http2.headers_frames(http2.END_STREAM if end else 0, stream, block, limit=limit)
    got = bytearray()
    kinds = []
    while data:
        made, length = hf.Frame.parse_frame_header(memoryview(data)[:9])
        made.parse_body(memoryview(data)[9 : 9 + length])
        assert length <= limit
        kinds.append(type(made))
        got += made.data
        assert ("END_HEADERS" in made.flags) is (len(data) == 9 + length)
        data = data[9 + length :]
    assert bytes(got) == block
    assert kinds == [hf.HeadersFrame] + [hf.ContinuationFrame] * (len(kinds) - 1)


def test_short_frames():
    assert http2.rst_stream(3, ErrorCode.CANCEL) == hf.RstStreamFrame(3, error_code=8).serialize()
    assert http2.window_update(0, 7) == hf.WindowUpdateFrame(0, window_increment=7).serialize()
    assert http2.settings_frame([(1, 2)]) == hf.SettingsFrame(0, settings={1: 2}).serialize()
    assert (
        http2.goaway(5, ErrorCode.PROTOCOL_ERROR, "why")
        == hf.GoAwayFrame(0, last_stream_id=5, error_code=1, additional_data=b"why").serialize()
    )
    made = http2.push_promise_frames(1, 2, b"\x82")
    assert made == hf.PushPromiseFrame(1, 2, b"\x82", flags=["END_HEADERS"]).serialize()
