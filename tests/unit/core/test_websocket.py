import zlib
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from samples.websocket_cases import (
    BINARY,
    CASES,
    CLOSE,
    DEFLATE,
    TEXT,
    Case,
    Frame,
    close,
    compressed,
    deflated,
)
from weir_sidecar.contract.request import Opcode, WebSocketMessage, WebSocketSender
from weir_sidecar.contract.request_log import WebSocketLog
from weir_sidecar.core.captured import Room
from weir_sidecar.core.websocket import MOST_INFLATED, Messages, WebSocket
from weir_sidecar.wire.websocket import OPCODES, Code, extensions

ALL = WebSocketLog(messages=1000, max_bytes=1 << 20)
ROOM = 8 << 20


class Bench:
    """A WebSocket that is told of what each side sends; time stands still."""

    def __init__(self, agreed=b"", log=ALL, room=ROOM):
        self.room = Room(room)
        self.socket = WebSocket(extensions(agreed), Messages(log, self.room, lambda: 12.5, 10.0))

    def client(self, *frames):
        data = Case("", frames).bytes(client=True)
        self.socket.from_client(data, 0, len(data))

    def server(self, *frames):
        data = Case("", frames).bytes(client=False)
        self.socket.from_server(data, 0, len(data))


def content(message: WebSocketMessage) -> bytes:
    return b64decode(message.content) if message.base64 else message.content.encode()


@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_messages_are_told_inflated(case: Case, client):
    bench = Bench(case.extensions)
    (bench.client if client else bench.server)(*case.frames)
    record = bench.socket.record()
    mine, other = (record.client, record.server) if client else (record.server, record.client)
    assert (mine.malformed, mine.close_code) == (case.malformed, case.close_code)
    assert (other.text, other.binary, other.malformed, other.close_code) == (0, 0, 0, None)
    told = [(one.opcode, content(one)) for one in record.messages if not one.truncated]
    assert told == [
        (OPCODES[Code(opcode)], payload[2:] if opcode == CLOSE else payload) for opcode, payload in case.messages
    ]
    assert bench.room.left == ROOM


def test_both_sides_in_the_order_in_which_messages_end():
    bench = Bench()
    bench.client(Frame(TEXT, b"a", fin=False))
    bench.server(Frame(BINARY, b"\xff"))
    bench.client(Frame(0, b"b"))
    bench.server(close(1001, b"bye"))
    record = bench.socket.record()
    client, server = WebSocketSender.CLIENT, WebSocketSender.SERVER
    assert record.messages == (
        WebSocketMessage(server, Opcode.BINARY, 2500.0, 1, compressed=False, content="/w==", base64=True),
        WebSocketMessage(client, Opcode.TEXT, 2500.0, 2, compressed=False, content="ab"),
        WebSocketMessage(server, Opcode.CLOSE, 2500.0, 5, compressed=False, content="bye"),
    )
    assert (record.messages_left_out, record.server.close_code) == (0, 1001)


def test_the_first_are_told_and_the_others_counted():
    bench = Bench(log=WebSocketLog(messages=2, max_bytes=3))
    bench.client(*(Frame(TEXT, b"abcdef") for _ in range(5)))
    record = bench.socket.record()
    assert [(one.content, one.truncated, one.length) for one in record.messages] == [("abc", True, 6)] * 2
    assert (record.messages_left_out, record.client.text) == (3, 5)


def test_without_anybody_who_asks_frames_are_counted():
    socket = WebSocket(extensions(b""), None)
    data = Case("", (Frame(TEXT, b"x"), close(1000))).bytes(client=True)
    socket.from_client(data, 0, len(data))
    record = socket.record()
    assert (record.messages, record.messages_left_out) == (UNSET, UNSET)
    assert (record.client.text, record.client.close, record.client.close_code) == (1, 1, 1000)


def test_a_message_that_has_not_ended_is_not_told_and_takes_no_room():
    bench = Bench(DEFLATE)
    bench.client(Frame(TEXT, b"begun", fin=False))
    assert bench.socket.record().messages == ()
    assert bench.room.left == ROOM


BOMB = b"\0" * (8 * MOST_INFLATED)


@pytest.mark.parametrize("takeover", [True, False])
def test_a_bomb_is_left_at_that(takeover):
    packer = zlib.compressobj(wbits=-15)
    agreed = DEFLATE if takeover else DEFLATE + b"; client_no_context_takeover"
    bench = Bench(agreed, WebSocketLog(messages=10, max_bytes=4))
    bench.client(compressed(BOMB, packer, opcode=BINARY))
    after = packer if takeover else None
    bench.client(compressed(b"after", after), Frame(TEXT, b"plain"))
    bomb, later, plain = bench.socket.record().messages
    assert (bomb.truncated, content(bomb), bomb.compressed) == (True, b"\0\0\0\0", True)
    if takeover:  # it may refer to what was not inflated
        assert (later.truncated, later.content) == (True, UNSET)
    else:
        assert (later.truncated, later.content) == (True, "afte")
    assert (plain.content, plain.length) == ("plai", 5)


def test_how_much_of_a_bomb_is_inflated(monkeypatch):
    inflated = 0

    class Counting:
        def __init__(self, bits):
            self._zlib = real(bits)
            self.eof = False

        def decompress(self, data, limit):
            nonlocal inflated
            out = self._zlib.decompress(data, limit)
            inflated += len(out)
            self.unconsumed_tail = self._zlib.unconsumed_tail
            return out

    real = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    bench = Bench(DEFLATE)
    bench.client(compressed(BOMB, opcode=BINARY))
    assert MOST_INFLATED <= inflated < MOST_INFLATED + 65537


@pytest.mark.parametrize("takeover", [True, False])
def test_what_is_not_deflate_is_told_as_such(takeover):
    agreed = DEFLATE if takeover else DEFLATE + b"; server_no_context_takeover"
    bench = Bench(agreed)
    bench.server(Frame(TEXT, b"\xff\xff\xff", rsv=4), compressed(b"good"))
    bad, good = bench.socket.record().messages
    assert (bad.truncated, bad.content) == (True, UNSET)
    assert good.content == (UNSET if takeover else "good")


def test_what_there_is_no_room_for_is_left_out():
    bench = Bench(DEFLATE, room=1200)
    bench.client(compressed(b"no room for a window"), Frame(TEXT, b"x" * 600), Frame(TEXT, b"y" * 600))
    record = bench.socket.record()
    assert [(one.length, one.content, one.truncated) for one in record.messages] == [
        (22, UNSET, True), (600, "x" * 600, False),
    ]  # fmt: skip
    assert record.messages_left_out == 1
    assert bench.room.left == 1200


texts = st.lists(st.text(max_size=50), min_size=1, max_size=6)


@given(texts, st.booleans(), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_whatever_a_peer_compresses_is_told(said, takeover, sizes):
    packer = zlib.compressobj(wbits=-15) if takeover else None
    frames = []
    for text in said:
        rest = deflated(text.encode(), packer)
        first = True
        for size in sizes:
            frames.append(Frame(TEXT if first else 0, rest[:size], fin=False, rsv=4 if first else 0))
            rest, first = rest[size:], False
        frames.append(Frame(0, rest))
    bench = Bench(DEFLATE if takeover else DEFLATE + b"; server_no_context_takeover")
    bench.server(*frames)
    assert [one.content for one in bench.socket.record().messages] == said
