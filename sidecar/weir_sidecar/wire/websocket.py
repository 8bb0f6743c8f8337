"""The frames of one direction of a WebSocket (RFC 6455, section 5): read beside their bytes, counted, and never changed.

A frame that is not allowed is counted as malformed and its payload is passed over; who gets it decides what it is worth.
"""

import re
from enum import IntEnum
from struct import Struct as Packing
from typing import Protocol

import msgspec

from weir_sidecar.contract.request import Opcode

MOST_CONTROL = 125
"""Bytes of a control frame's payload (section 5.5)."""


class Code(IntEnum):
    """Opcodes as they are sent (section 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


OPCODES = {code: Opcode[code.name] for code in Code}

_CONTROL, _FINAL, _MASKED = 0x08, 0x80, 0x80
_COMPRESSED, _RESERVED = 0x40, 0x30
_head16, _head64, _code = Packing(">H"), Packing(">Q"), Packing(">H")
_TOO_LONG = 1 << 63


class Extensions(msgspec.Struct, frozen=True):
    """What both ends agreed on (the answer's Sec-WebSocket-Extensions, section 9.1).

    `compressed`: permessage-deflate (RFC 7692); then whose messages are compressed with what came before them in mind.
    `unknown`: another one, that may use any reserved bit and change any payload.
    """

    compressed: bool = False
    client_takeover: bool = True
    server_takeover: bool = True
    unknown: bool = False


_PARAMETER = re.compile(rb"([a-z0-9_]+)(?:[ \t]*+=[ \t]*+(?:[a-z0-9]+|\"[^\"]*\"))?")


def extensions(value: bytes) -> Extensions:
    """Read a Sec-WebSocket-Extensions of an answer; empty: there is none."""
    text = value.strip(b" \t").lower()
    if not text:
        return Extensions()
    name, mark, rest = text.partition(b";")
    parameters = [_PARAMETER.fullmatch(one.strip(b" \t")) for one in rest.split(b";")] if mark else []
    if name.rstrip(b" \t") != b"permessage-deflate" or b"," in rest or None in parameters:
        return Extensions(unknown=True)
    given = {one[1] for one in parameters if one is not None}
    return Extensions(
        compressed=True,
        client_takeover=b"client_no_context_takeover" not in given,
        server_takeover=b"server_no_context_takeover" not in given,
    )


class Listener(Protocol):
    """Is told of messages as they come."""

    @property
    def wants(self) -> bool:
        """Whether it is to be told of payloads."""

    def payload(self, data: bytes, *, compressed: bool) -> None:
        """More of the data message that is being sent, unmasked."""

    def ended(self, opcode: Code, length: int, *, compressed: bool) -> None:
        """That message has come, whole: `length` bytes of payload as they were sent."""

    def control(self, opcode: Code, payload: bytes) -> None:
        """A control frame, which may come within a message."""


class FrameReader:
    """Reads one direction. `counts` by `Code`; `malformed` how many frames were not allowed; `close_code` of the first Close."""

    __slots__ = (
        "_code", "_compressed", "_control", "_extensions", "_final", "_head", "_left", "_length", "_listener", "_lost", "_mask",
        "_masked", "_message", "close_code", "counts", "malformed",
    )  # fmt: skip

    def __init__(self, agreed: Extensions, *, client: bool, listener: Listener | None = None) -> None:
        """`client`: these are the client's frames, which have to be masked (section 5.3)."""
        self.counts = dict.fromkeys(Code, 0)
        self.malformed = 0
        self.close_code: int | None = None
        self._extensions = agreed
        self._masked = client
        self._listener = listener
        self._head = b""
        """The beginning of a frame's head."""
        self._left = 0
        """Payload bytes of the frame that are still to come."""
        self._mask = b""
        """For the next of them."""
        self._code: Code | None = None
        """What the frame is; None where it is malformed, so that its payload is passed over."""
        self._final = False
        self._control = bytearray()
        self._message: Code | None = None
        """What the fragments belong to that come."""
        self._compressed = False
        self._length = 0
        """Of the message so far."""
        self._lost = False
        """It cannot be told any more where frames begin."""

    def feed(self, data: bytes, at: int, end: int) -> None:
        """Take what is in `data` from `at` to `end`."""
        while at < end and not self._lost:
            if self._left:
                taken = min(self._left, end - at)
                self._take(data, at, at + taken)
                at += taken
                continue
            size = _head_size(self._head, data, at, end)
            if not size:
                self._head += data[at:end]
                return
            after = at + size - len(self._head)
            self._begin(self._head + data[at:after])
            self._head = b""
            at = after

    def _begin(self, head: bytes) -> None:
        """A frame begins with this head."""
        bits, size = head[0], head[1] & 0x7F
        length = size
        if size == 126:
            (length,) = _head16.unpack_from(head, 2)
        elif size == 127:
            (length,) = _head64.unpack_from(head, 2)
        if length >= _TOO_LONG:
            self.malformed += 1
            self._lost = True
            return
        code = self._allowed(bits, head[1], length)
        self._code = code
        self._left = length
        self._mask = head[-4:] if head[1] & _MASKED else b""
        self._final = bool(bits & _FINAL)
        if code is None:
            self.malformed += 1
        elif code & _CONTROL:
            self._control.clear()
        elif code is not Code.CONTINUATION:
            self._message = code
            self._compressed = bool(bits & _COMPRESSED)
            self._length = 0
        if not length:
            self._end()

    def _allowed(self, bits: int, second: int, length: int) -> Code | None:
        """Count a frame by its opcode; returns that where the frame is allowed."""
        try:
            code = Code(bits & 0x0F)
        except ValueError:
            return None
        self.counts[code] += 1
        shortest = length > 125 if second & 0x7F == 126 else length > 65535 if second & 0x7F == 127 else True
        if not shortest or bool(second & _MASKED) is not self._masked:
            return None
        if not self._extensions.unknown:
            first = code in {Code.TEXT, Code.BINARY}
            if bits & _RESERVED or (bits & _COMPRESSED and not (first and self._extensions.compressed)):
                return None
        if code & _CONTROL:
            return code if bits & _FINAL and length <= MOST_CONTROL else None
        return code if (code is Code.CONTINUATION) is (self._message is not None) else None

    def _take(self, data: bytes, start: int, end: int) -> None:
        """Payload."""
        self._left -= end - start
        code = self._code
        if code is not None:
            if code & _CONTROL:
                self._control += self._unmasked(data[start:end])
            else:
                self._length += end - start
                if self._listener is not None and self._listener.wants:
                    self._listener.payload(self._unmasked(data[start:end]), compressed=self._compressed)
        if not self._left:
            self._end()

    def _unmasked(self, data: bytes) -> bytes:
        """The next payload bytes without their mask (section 5.3)."""
        if not self._mask:
            return data
        size = len(data)
        mask = self._mask * (size // 4 + 1)
        self._mask = (self._mask * 2)[size % 4 : size % 4 + 4]
        return (int.from_bytes(data) ^ int.from_bytes(mask[:size])).to_bytes(size)

    def _end(self) -> None:
        """The frame has come, whole."""
        code = self._code
        if code is None:
            return
        if code & _CONTROL:
            self._end_control(code, bytes(self._control))
        elif self._final:
            message, self._message = self._message, None
            if self._listener is not None:
                assert message is not None
                self._listener.ended(message, self._length, compressed=self._compressed)

    def _end_control(self, code: Code, payload: bytes) -> None:
        if code is Code.CLOSE:
            if not _is_reason(payload):
                self.malformed += 1
            elif payload and self.close_code is None:
                (self.close_code,) = _code.unpack_from(payload)
        if self._listener is not None:
            self._listener.control(code, payload)


def _head_size(held: bytes, data: bytes, at: int, end: int) -> int:
    """Bytes of the head that begins with `held` and goes on in `data`; 0: it is not whole."""
    there = len(held) + end - at
    if there < 2:
        return 0
    second = held[1] if len(held) > 1 else data[at + 1 - len(held)]
    size = 2 + {126: 2, 127: 8}.get(second & 0x7F, 0) + (4 if second & _MASKED else 0)
    return size if there >= size else 0


def _is_reason(payload: bytes) -> bool:
    """Whether a Close says nothing, or a code that may be sent (section 7.4, and IANA's registry) and why, in UTF-8."""
    if not payload:
        return True
    if len(payload) < 2:
        return False
    (code,) = _code.unpack_from(payload)
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        return False
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return False
    return True
