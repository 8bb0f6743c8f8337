import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samples.websocket_cases import BINARY, CASES, CLOSE, CONT, PING, PONG, TEXT, Case, Frame
from weir_sidecar.wire.websocket import Code, Extensions, FrameReader, extensions

SIDES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])


class Heard:
    """Messages as they came, not inflated."""

    def __init__(self):
        self.wants = True
        self.all = []
        self._open = b""

    def payload(self, data, *, compressed):
        self._open += data

    def ended(self, opcode, length, *, compressed):
        assert length == len(self._open)
        self.all.append((int(opcode), self._open, compressed))
        self._open = b""

    def control(self, opcode, payload):
        self.all.append((int(opcode), payload, False))


def read(data, agreed, *, client, sizes=(65536,)):
    heard = Heard()
    reader = FrameReader(agreed, client=client, listener=heard)
    at, portions = 0, itertools.cycle(sizes)
    while at < len(data):
        end = min(at + next(portions), len(data))
        reader.feed(data, at, end)
        at = end
    return reader, heard.all


def facts(reader):
    return {code: count for code, count in reader.counts.items() if count}, reader.malformed, reader.close_code


@SIDES
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_frames_are_counted_and_what_is_not_allowed_is_told(case: Case, client):
    data = case.bytes(client=client)
    agreed = extensions(case.extensions)
    reader, heard = read(data, agreed, client=client)
    known = [frame.opcode for frame in case.frames if frame.opcode in set(Code)]
    assert facts(reader) == ({code: known.count(code) for code in set(known)}, case.malformed, case.close_code)
    if not agreed.compressed:  # core/websocket.py inflates
        assert [(opcode, payload) for opcode, payload, _ in heard] == list(case.messages)
    if len(data) < 5000:
        for size in (1, 3):
            again, parts = read(data, agreed, client=client, sizes=(size,))
            assert (facts(again), parts) == (facts(reader), heard)


frames = st.builds(
    Frame,
    opcode=st.sampled_from([CONT, TEXT, BINARY, PING, PONG, CLOSE, 3, 11]),
    payload=st.binary(max_size=20) | st.binary(min_size=120, max_size=140),
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 4, 1]),
    form=st.sampled_from([None, None, None, 16, 64]),
    wrong_mask=st.sampled_from([False, False, False, True]),
)


@given(
    st.lists(frames, max_size=8), st.booleans(), st.booleans(), st.lists(st.integers(1, 30), min_size=1, max_size=5)
)  # fmt: skip
def test_any_portions_come_to_the_same_and_every_frame_is_counted_once(sent, client, deflate, sizes):
    case = Case("", tuple(sent))
    agreed = Extensions(compressed=deflate)
    data = case.bytes(client=client)
    reader, heard = read(data, agreed, client=client)
    again, parts = read(data, agreed, client=client, sizes=sizes)
    assert (facts(again), parts) == (facts(reader), heard)
    assert sum(reader.counts.values()) == sum(frame.opcode in set(Code) for frame in sent)
    assert reader.malformed >= sum(frame.opcode in (3, 11) or frame.wrong_mask for frame in sent)
    well_formed = sum(len(payload) for _, payload, _ in heard)
    assert well_formed <= sum(len(frame.payload) for frame in sent)


@given(st.binary(max_size=200), st.booleans(), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_whatever_comes_is_read_the_same_in_any_portions(data, client, sizes):
    reader, heard = read(data, Extensions(), client=client)
    again, parts = read(data, Extensions(), client=client, sizes=sizes)
    assert (facts(again), parts) == (facts(reader), heard)


def test_after_a_length_that_no_frame_can_have_nothing_is_read():
    data = b"\x82\x7f" + b"\xff" * 8 + b"\x81\x02hi" * 3
    reader, heard = read(data, Extensions(), client=False)
    assert (reader.malformed, sum(reader.counts.values()), heard) == (1, 0, [])


def test_a_payload_that_nobody_wants_is_passed_over():
    reader = FrameReader(Extensions(), client=True)
    data = Case("", (Frame(BINARY, b"x" * 1000), Frame(CLOSE, b"\x03\xe8bye"))).bytes(client=True)
    reader.feed(data, 0, len(data))
    assert facts(reader) == ({Code.BINARY: 1, Code.CLOSE: 1}, 0, 1000)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("value", "agreed"),
    [
        (b"", Extensions()),
        (b" permessage-deflate ", Extensions(compressed=True)),
        (
            b"permessage-deflate; client_no_context_takeover;server_max_window_bits = 10",
            Extensions(compressed=True, client_takeover=False),
        ),
        (
            b'Permessage-Deflate; server_no_context_takeover; client_max_window_bits="9"',
            Extensions(compressed=True, server_takeover=False),
        ),
        (b"permessage-bzip2", Extensions(unknown=True)),
        (b"permessage-deflate, x-odd", Extensions(unknown=True)),
        (b"permessage-deflate; a=b, x-odd", Extensions(unknown=True)),
        (b"permessage-deflate; =", Extensions(unknown=True)),
        (b"permessage-deflate;", Extensions(unknown=True)),
        (b"permessage-deflate; a" + b" " * 60000 + b"!", Extensions(unknown=True)),  # in one pass
        (b"permessage-deflate; a = " + b" " * 60000 + b"!", Extensions(unknown=True)),
    ],
)
def test_extensions(value, agreed):
    assert extensions(value) == agreed
