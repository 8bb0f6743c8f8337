"""Frames of one direction, in the manner of Autobahn's list: what they are, and what a record says of them.

The frames of a case are written without a mask; the client's direction masks them, each with another key.
"""

import zlib
from itertools import count
from typing import NamedTuple

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
DEFLATE = b"permessage-deflate"


class Frame(NamedTuple):
    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    """0 to 7: RSV1 is 4."""
    form: int | None = None
    """How the length is written: 7, 16 or 64 bits; None: the shortest."""
    wrong_mask: bool = False

    def bytes(self, mask: bytes | None) -> bytes:
        size = len(self.payload)
        form = self.form or (7 if size < 126 else 16 if size < 65536 else 64)
        length = {7: bytes([size & 0x7F]), 16: b"\x7e" + (size & 0xFFFF).to_bytes(2), 64: b"\x7f" + size.to_bytes(8)}
        head = bytes([self.fin << 7 | self.rsv << 4 | self.opcode]) + length[form]
        if (mask is None) is not self.wrong_mask:
            return head + self.payload
        mask = mask or b"\x01\x02\x03\x04"
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.payload))
        return head[:1] + bytes([head[1] | 0x80]) + head[2:] + mask + masked


class Case(NamedTuple):
    name: str
    frames: tuple[Frame, ...]
    malformed: int = 0
    close_code: int | None = None
    messages: tuple[tuple[int, bytes], ...] = ()
    """Opcode and payload, in the order in which they end: of those that are well-formed, control frames included."""
    extensions: bytes = b""

    def bytes(self, *, client: bool) -> bytes:
        """As the client sends them, or as the server does."""
        masks = (number.to_bytes(4) for number in count(0x37FA213D, 0x01030507))
        return b"".join(frame.bytes(next(masks) if client else None) for frame in self.frames)


def close(code: int | None = None, reason: bytes = b"", rest: bytes = b"") -> Frame:
    return Frame(CLOSE, b"" if code is None else code.to_bytes(2) + reason + rest)


def deflated(data: bytes, packer=None) -> bytes:
    """A message as permessage-deflate sends it (RFC 7692, section 7.2.1)."""
    packer = packer or zlib.compressobj(wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def compressed(data: bytes, packer=None, **given) -> Frame:
    return Frame(given.pop("opcode", TEXT), deflated(data, packer), rsv=4, **given)


def _one(name: str, opcode: int, payload: bytes, form: int | None = None) -> Case:
    return Case(name, (Frame(opcode, payload, form=form),), messages=((opcode, payload),))


def _bad(name: str, *frames: Frame, malformed: int = 1, messages=(), extensions: bytes = b"") -> Case:
    return Case(name, frames, malformed, messages=messages, extensions=extensions)


def _code(code: int, *, good: bool) -> Case:
    frames = (close(code, b"why"),)
    said = ((CLOSE, code.to_bytes(2) + b"why"),)
    return Case(f"7 close {code}", frames, 0 if good else 1, code if good else None, said)


def _same_window() -> tuple[Frame, ...]:
    packer = zlib.compressobj(wbits=-15)
    return tuple(compressed(b"the same words " * 20, packer) for _ in range(3))


_LONG = bytes(range(256)) * 300
_TALE = "Hello-µ@ßöäüàá-UTF-8!!".encode()
_SPLIT = deflated(b"in three parts, compressed once")
_SAME = (TEXT, b"the same words " * 20)

CASES = (
    # 1 framing
    *(_one(f"1 text of {size}", TEXT, b"*" * size) for size in (0, 1, 125, 126, 127, 128, 65535, 65536)),
    *(_one(f"1 binary of {size}", BINARY, _LONG[:size]) for size in (0, 125, 126, 65535, 65536)),
    # 2 pings and pongs
    _one("2 ping", PING, b""),
    _one("2 ping with payload", PING, b"Hello, world!"),
    _one("2 ping of 125", PING, b"\xfe" * 125),
    _one("2 unsolicited pong", PONG, b"unsolicited"),
    _bad("2 ping of 126", Frame(PING, b"\xfe" * 126)),
    Case(
        "2 ten pings",
        tuple(Frame(PING, b"payload-%d" % number) for number in range(10)),
        messages=tuple((PING, b"payload-%d" % number) for number in range(10)),
    ),
    # 3 reserved bits
    *(_bad(f"3 rsv {rsv} of a text", Frame(TEXT, b"hi", rsv=rsv)) for rsv in range(1, 8)),
    _bad("3 rsv of a ping", Frame(PING, b"hi", rsv=4), Frame(TEXT, b"on"), messages=((TEXT, b"on"),)),
    _bad("3 rsv of a close", Frame(CLOSE, rsv=7)),
    Case("3 rsv with an extension that is not known", (Frame(BINARY, b"hi", rsv=3),), messages=((BINARY, b"hi"),), extensions=b"x-odd"),
    # 4 opcodes
    *(_bad(f"4 opcode {code}", Frame(code, b"reserved")) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    _bad("4 an opcode between texts", Frame(TEXT, b"a"), Frame(5, b"x"), Frame(TEXT, b"b"), messages=((TEXT, b"a"), (TEXT, b"b"))),
    # 5 fragmentation
    Case(
        "5 text in fragments",
        (Frame(TEXT, b"frag", fin=False), Frame(CONT, b"", fin=False), Frame(CONT, b"ment")),
        messages=((TEXT, b"fragment"),),
    ),
    Case(
        "5 a ping between fragments",
        (Frame(TEXT, b"fragment1", fin=False), Frame(PING, b"ping"), Frame(CONT, b"fragment2")),
        messages=((PING, b"ping"), (TEXT, b"fragment1fragment2")),
    ),
    Case(
        "5 pings between many fragments",
        (
            Frame(BINARY, b"1", fin=False), Frame(PING, b"p1"), Frame(CONT, b"2", fin=False), Frame(PONG, b"p2"),
            Frame(CONT, b"3", fin=False), Frame(CONT, b""),
        ),
        messages=((PING, b"p1"), (PONG, b"p2"), (BINARY, b"123")),
    ),
    _bad("5 a ping in fragments", Frame(PING, b"fragment1", fin=False), Frame(CONT, b"fragment2"), malformed=2),
    _bad("5 a continuation of nothing", Frame(CONT, b"fragment2"), Frame(TEXT, b"a"), messages=((TEXT, b"a"),)),
    _bad("5 a continuation of nothing, not final", Frame(CONT, b"x", fin=False)),
    _bad(
        "5 a text within a text", Frame(TEXT, b"a", fin=False), Frame(TEXT, b"b"), Frame(CONT, b"c"),
        messages=((TEXT, b"ac"),),
    ),
    _bad("5 a pong that is fragmented", Frame(PONG, b"x", fin=False), malformed=1),
    # 6 text that is, and is not, UTF-8
    _one("6 UTF-8", TEXT, _TALE),
    Case(
        "6 UTF-8 cut within a character",
        (Frame(TEXT, _TALE[:7], fin=False), Frame(CONT, _TALE[7:8], fin=False), Frame(CONT, _TALE[8:])),
        messages=((TEXT, _TALE),),
    ),
    _one("6 a surrogate", TEXT, b"\xed\xa0\x80"),
    _one("6 an overlong slash", TEXT, b"\xc0\xaf"),
    _one("6 beyond Unicode", TEXT, b"\xf4\x90\x80\x80"),
    _one("6 cut short", TEXT, b"\xce\xba\xe1\xbd"),
    # 7 closing
    Case("7 close without a code", (close(),), messages=((CLOSE, b""),)),
    Case("7 close with one byte", (Frame(CLOSE, b"\x03"),), 1, messages=((CLOSE, b"\x03"),)),
    Case("7 close with a long reason", (close(1000, b"*" * 123),), 0, 1000, ((CLOSE, b"\x03\xe8" + b"*" * 123),)),
    _bad("7 close of 126", close(1000, b"*" * 124)),
    Case("7 close with a reason that is not UTF-8", (close(1000, b"\xce\xba\xe1\xbd"),), 1, None, ((CLOSE, b"\x03\xe8\xce\xba\xe1\xbd"),)),
    Case("7 two closes", (close(1001), close(1000)), 0, 1001, ((CLOSE, b"\x03\xe9"), (CLOSE, b"\x03\xe8"))),
    Case("7 a text after a close", (close(1000), Frame(TEXT, b"late")), 0, 1000, ((CLOSE, b"\x03\xe8"), (TEXT, b"late"))),
    *(_code(code, good=True) for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 3999, 4000, 4999)),
    *(_code(code, good=False) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)),
    # 8 masks and lengths
    _bad("8 the wrong mask", Frame(TEXT, b"hi", wrong_mask=True), Frame(TEXT, b"on"), messages=((TEXT, b"on"),)),
    _bad("8 a short length in 16 bits", Frame(TEXT, b"short", form=16)),
    _bad("8 a short length in 64 bits", Frame(BINARY, b"x" * 1000, form=64)),
    # 9 large messages
    _one("9 binary of 1 MiB", BINARY, b"\xfe" * (1 << 20)),
    Case(
        "9 text of 256 KiB in fragments",
        (Frame(TEXT, fin=False), *(Frame(CONT, b"x" * 4096, fin=False) for _ in range(64)), Frame(CONT)),
        messages=((TEXT, b"x" * 262144),),
    ),
    # 12 and 13 permessage-deflate
    Case("12 compressed", (compressed(b"Hello"),), messages=((TEXT, b"Hello"),), extensions=DEFLATE),
    Case("12 not compressed, though it may be", (Frame(TEXT, b"Hello"),), messages=((TEXT, b"Hello"),), extensions=DEFLATE),
    Case("12 compressed to nothing", (compressed(b""),), messages=((TEXT, b""),), extensions=DEFLATE),
    Case("12 a stored block (RFC 7692, 7.2.3.3)", (Frame(TEXT, bytes.fromhex("000500faff48656c6c6f00"), rsv=4),), messages=((TEXT, b"Hello"),), extensions=DEFLATE),
    Case("12 a final block (RFC 7692, 7.2.3.4)", (Frame(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv=4),), messages=((TEXT, b"Hello"),), extensions=DEFLATE),
    Case("12 two blocks (RFC 7692, 7.2.3.5)", (Frame(TEXT, bytes.fromhex("f248050000 00ffffcac9c90700"), rsv=4),), messages=((TEXT, b"Hello"),), extensions=DEFLATE),
    Case(
        "12 compressed, in fragments with a ping between",
        (Frame(TEXT, _SPLIT[:3], fin=False, rsv=4), Frame(PING, b"p"), Frame(CONT, _SPLIT[3:9], fin=False), Frame(CONT, _SPLIT[9:])),
        messages=((PING, b"p"), (TEXT, b"in three parts, compressed once")), extensions=DEFLATE,
    ),
    Case("12 with the context of before", _same_window(), messages=(_SAME,) * 3, extensions=DEFLATE),
    Case(
        "12 without the context of before",
        tuple(compressed(b"the same words " * 20) for _ in range(3)),
        messages=(_SAME,) * 3,
        extensions=b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    ),
    Case("12 with a small window", (compressed(_SAME[1], zlib.compressobj(wbits=-9)),), messages=(_SAME,), extensions=b"permessage-deflate; client_max_window_bits=9; server_max_window_bits=9"),
    _bad("13 rsv1 of a continuation", compressed(b"a", fin=False), Frame(CONT, b"b", rsv=4), extensions=DEFLATE),
    _bad("13 rsv1 of a ping", Frame(PING, b"p", rsv=4), extensions=DEFLATE),
    _bad("13 rsv2 with permessage-deflate", Frame(TEXT, b"p", rsv=2), extensions=DEFLATE),
)  # fmt: skip
