"""What a record tells of a WebSocket: its frames, counted, and where a policy asks for them its first messages.

Messages are inflated (RFC 7692) with bounded output: one that would come to more than `MOST_INFLATED` is left at that, and
where later ones of its sender refer to what it said, they are told without their content.
"""

import zlib
from collections.abc import Callable

from msgspec import UNSET, UnsetType

from weir_sidecar.contract.request import Opcode, WebSocketFrames, WebSocketMessage, WebSocketRecord, WebSocketSender
from weir_sidecar.contract.request_log import WebSocketLog
from weir_sidecar.core.captured import Capture, Room, told
from weir_sidecar.wire.websocket import OPCODES, Code, Extensions, FrameReader

MOST_INFLATED = 1 << 20
_INFLATER_BYTES = 48 << 10
"""What an inflater with its window takes of the room, about."""
_MESSAGE_BYTES = 256
"""What the record of a message takes, without its content."""
_STEP = 1 << 16
_TAIL = b"\x00\x00\xff\xff"
"""What senders leave out at the end of a message (RFC 7692, section 7.2.1)."""
_TEXTS = (Opcode.TEXT, Opcode.CLOSE)


class WebSocket:
    """One WebSocket. Give each side's bytes to `from_client` and `from_server`; `record` tells what there was."""

    __slots__ = ("_client", "_messages", "_server", "_sides", "from_client", "from_server")

    def __init__(self, agreed: Extensions, messages: "Messages | None") -> None:
        self._messages = messages
        client = server = None
        if messages is not None:
            client = _Side(messages, WebSocketSender.CLIENT, agreed, takeover=agreed.client_takeover)
            server = _Side(messages, WebSocketSender.SERVER, agreed, takeover=agreed.server_takeover)
        self._sides = (client, server)
        self._client = FrameReader(agreed, client=True, listener=client)
        self._server = FrameReader(agreed, client=False, listener=server)
        self.from_client: Callable[[bytes, int, int], None] = self._client.feed
        self.from_server: Callable[[bytes, int, int], None] = self._server.feed

    def record(self) -> WebSocketRecord:
        """What there was, once."""
        for side in self._sides:
            if side is not None:
                side.close()
        told, left_out = (UNSET, UNSET) if self._messages is None else self._messages.record()
        return WebSocketRecord(_frames(self._client), _frames(self._server), told, left_out)


class Messages:
    """The first messages of both sides, as they end."""

    __slots__ = ("_left_out", "_log", "_now", "_room", "_started", "_taken", "_told")

    def __init__(self, log: WebSocketLog, room: Room, now: Callable[[], float], started: float) -> None:
        """`now` in seconds, as `started`, when the request began."""
        self._log = log
        self._room = room
        self._now = now
        self._started = started
        self._told: list[WebSocketMessage] = []
        self._left_out = 0
        self._taken = 0

    @property
    def full(self) -> bool:
        """Whether no more of them are told."""
        return len(self._told) >= self._log.messages

    def capture(self) -> Capture:
        """For one more message."""
        return Capture(self._room, self._log.max_bytes)

    def take(self, size: int) -> bool:
        """Whether there is room for so much, which is taken then, until the record is made."""
        taken = self._room.take(size)
        if taken < size:
            self._room.give_back(taken)
            return False
        self._taken += size
        return True

    def ended(self, sender: WebSocketSender, opcode: Opcode, length: int, content: Capture | None, *, compressed: bool) -> None:  # fmt: skip
        """A message has ended. `content` None: it could not be inflated."""
        if self.full or not self.take(_MESSAGE_BYTES):
            self._left_out += 1
            if content is not None:
                content.release()
            return
        text: str | UnsetType = UNSET
        base64 = False
        if content is not None:
            text, base64 = told(bytes(content.kept), is_text=opcode in _TEXTS, truncated=content.truncated)
            self._taken += len(content.kept)  # it stays taken
        truncated = content is None or content.truncated
        at = int((self._now() - self._started) * 1e6) / 1000
        self._told.append(WebSocketMessage(sender, opcode, at, length, compressed, truncated, text, base64))

    def record(self) -> tuple[tuple[WebSocketMessage, ...], int]:
        """The messages, and how many came after them; they take no room from then on."""
        self._room.give_back(self._taken)
        self._taken = 0
        return tuple(self._told), self._left_out


class _Side:
    """Hears the messages of one side."""

    __slots__ = ("_has_enough", "_inflater", "_messages", "_open", "_sender")

    def __init__(self, messages: Messages, sender: WebSocketSender, agreed: Extensions, *, takeover: bool) -> None:
        self._messages = messages
        self._sender = sender
        inflates = agreed.compressed and messages.take(_INFLATER_BYTES)
        self._inflater = _Inflater(takeover=takeover) if inflates else None
        self._open: Capture | None = None
        """Of the data message that is being sent."""
        self._has_enough = False
        """Of that message."""

    @property
    def wants(self) -> bool:
        """Whether there is anything still to be told."""
        return not (self._has_enough or self._messages.full)

    def payload(self, data: bytes, *, compressed: bool) -> None:
        """More of a data message."""
        capture = self._open = self._open or self._messages.capture()
        if not compressed:
            capture.add(data, 0, len(data))
            self._has_enough = capture.truncated
        elif self._inflater is not None:
            self._inflater.inflate(data, capture)

    def ended(self, opcode: Code, length: int, *, compressed: bool) -> None:
        """A data message is whole."""
        capture = self._open or self._messages.capture()
        self._open = None
        self._has_enough = False
        lost = compressed and self.wants and (self._inflater is None or not self._inflater.end(capture))
        content = None if lost else capture
        self._messages.ended(self._sender, OPCODES[opcode], length, content, compressed=compressed)

    def close(self) -> None:
        """What is still being sent will not be told."""
        if self._open is not None:
            self._open.release()
            self._open = None

    def control(self, opcode: Code, payload: bytes) -> None:
        """A control frame; of a Close the reason is told, since its code stands elsewhere."""
        capture = self._messages.capture()
        capture.add(payload, 2 if opcode is Code.CLOSE else 0, len(payload))
        self._messages.ended(self._sender, OPCODES[opcode], len(payload), capture, compressed=False)


class _Inflater:
    """Inflates one side's messages, each into a capture."""

    __slots__ = ("_left", "_takeover", "_works", "_zlib")

    def __init__(self, *, takeover: bool) -> None:
        self._takeover = takeover
        self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
        self._left = MOST_INFLATED
        self._works = True
        """Whether this message can still be inflated; once it cannot, with takeover none after it can."""

    def inflate(self, data: bytes, capture: Capture) -> None:
        """More of a message."""
        while data and self._works and not self._zlib.eof:
            try:
                out = self._zlib.decompress(data, _STEP)
            except zlib.error:
                self._works = False
                break
            capture.add(out, 0, len(out))
            data = self._zlib.unconsumed_tail
            self._left -= len(out)
            self._works = self._left > 0
        if not self._works:
            capture.truncated = True

    def end(self, capture: Capture) -> bool:
        """The message is whole; whether anything of it could be inflated."""
        could = self._works or bool(capture.kept)
        self.inflate(_TAIL, capture)
        self._left = MOST_INFLATED
        if self._zlib.eof or not self._takeover:
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
            self._works = True
        return could


def _frames(reader: FrameReader) -> WebSocketFrames:
    counts = {opcode.value: reader.counts[code] for code, opcode in OPCODES.items()}
    return WebSocketFrames(**counts, malformed=reader.malformed, close_code=reader.close_code)
