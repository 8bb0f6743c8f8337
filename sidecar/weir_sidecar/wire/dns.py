"""DNS messages (RFC 1035): the question, the addresses an answer gives, and the answer that refuses.

A message is read only as far as needed. Offsets count from the message's first byte; nothing here copies a message.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

HEADER_SIZE = 12
MAX_NAME = 255
EDNS_UDP_SIZE = 1232
"""What we say we take in an OPT record of our own: the size of the DNS flag day, which needs no fragments."""

A, CNAME, SOA, AAAA, OPT, SVCB, HTTPS, IXFR, AXFR, ANY = 1, 5, 6, 28, 41, 64, 65, 251, 252, 255

NOERROR, NXDOMAIN, REFUSED = 0, 3, 5

_QR, _TC, _KEPT_IN_REFUSAL, _RA = 0x8000, 0x0200, 0x7910, 0x0080  # kept: opcode, RD, CD
_DO = 0x8000
_RCODE = 0x000F
_EDE_BLOCKED = struct.pack("!HHH", 15, 2, 15)  # RFC 8914: Extended DNS Error, "Blocked"

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_U16 = struct.Struct("!H")
_TYPE_AND_CLASS = struct.Struct("!HH")
_ONE, _NO_RECORDS, _ONE_ADDITIONAL = b"\0\1", bytes(6), bytes(5) + b"\1"
_ROOT_OPT = b"\0" + OPT.to_bytes(2)
_FIRST_PRINTABLE = 0x21
# Lower case; what is not printable, as the length of a short label, becomes a dot; what would need escaping, no ASCII.
_AS_TEXT = bytes(
    0xFF if byte in b"\0\\" or byte > 0x7E else ord(".") if byte < _FIRST_PRINTABLE else byte for byte in range(256)
).lower()
_POINTER = 0xC0
_MAX_LABEL = 63


class MalformedDNS(ValueError):  # noqa: N818 - it says what the bytes are
    """Bytes that are no DNS message of the kind asked for; the text says what was found."""


class Question(msgspec.Struct, frozen=True, gc=False):
    """What was asked. `name` is lower case without the final dot; the root is ""; odd bytes are escaped."""

    name: str
    qtype: int
    qclass: int
    end: int
    """Offset of the first byte after the question."""


class Record(NamedTuple):
    """One resource record's place: its owner name's offset, its fields, and where its RDATA begins and ends."""

    section: int
    """0 answer, 1 authority, 2 additional."""
    owner: int
    rtype: int
    rclass: int
    ttl: int
    start: int
    end: int


def parse_query(data: bytes) -> Question:
    """Read a query: one question, records that fit, nothing after them (RFC 9619). Raises `MalformedDNS`."""
    labels = lengths = 0
    offset = HEADER_SIZE
    try:
        while length := data[offset]:
            offset += 1 + length
            labels += 1
            lengths |= length
        qtype, qclass = _TYPE_AND_CLASS.unpack_from(data, offset + 1)
    except (struct.error, IndexError):
        raise MalformedDNS(f"{len(data)} bytes end inside the header or the question") from None
    size = offset + 1 - HEADER_SIZE
    if data[2] & (_QR >> 8) or data[4:6] != _ONE or lengths > _MAX_LABEL or size > MAX_NAME:
        raise MalformedDNS(f"no query with one question: {data[:HEADER_SIZE].hex()}, {size} bytes of name")
    last = end = offset + 5
    if data[6:12] == _ONE_ADDITIONAL and data[end : end + 3] == _ROOT_OPT:
        last = end + 11 + int.from_bytes(data[end + 9 : end + 11])
    elif data[6:12] != _NO_RECORDS:
        for record in records(data, end):
            last = record.end
    if last != len(data):
        raise MalformedDNS(f"{len(data) - last} bytes after the last record")
    return Question(_name(data, offset, labels, lengths), qtype, qclass, end)


def _name(data: bytes, end: int, labels: int, lengths: int) -> str:
    """The question's name as text. Nearly all names are plain: no length and no byte of them is taken for another.

    `lengths` has each bit that the length of any label has.
    """
    if lengths < _FIRST_PRINTABLE:
        text = data[HEADER_SIZE + 1 : end].translate(_AS_TEXT)
        if text.isascii() and text.count(b".") == max(labels - 1, 0):
            return text.decode("ascii")
    parts = []
    offset = HEADER_SIZE
    while length := data[offset]:
        parts.append("".join(map(_escaped, data[offset + 1 : offset + 1 + length].lower())))
        offset += 1 + length
    return ".".join(parts)


def _escaped(byte: int) -> str:
    """One byte of a label in master file form (RFC 1035 section 5.1)."""
    if byte in b".\\":
        return "\\" + chr(byte)
    return chr(byte) if 0x21 <= byte <= 0x7E else f"\\{byte:03d}"


def skip_name(data: bytes, offset: int) -> int:
    """Offset after the name at `offset`. Raises `MalformedDNS`, and IndexError at the end of the message."""
    while length := data[offset]:
        if length >= _POINTER:
            return offset + 2
        if length > _MAX_LABEL:
            raise MalformedDNS(f"label type {length:#04x} at {offset}")
        offset += 1 + length
    return offset + 1


def records(data: bytes, offset: int) -> Iterator[Record]:
    """Every record from `offset`, the end of the question, on. Raises `MalformedDNS`."""
    size = len(data)
    try:
        for section, count in enumerate(_HEADER.unpack_from(data)[3:]):
            for _ in range(count):
                owner = offset
                offset = skip_name(data, offset)
                rtype, rclass, ttl, length = _RECORD.unpack_from(data, offset)
                start = offset + _RECORD.size
                offset = start + length
                if offset > size:
                    raise MalformedDNS(f"record at {owner} ends after the message")
                yield Record(section, owner, rtype, rclass, ttl, start, offset)
    except (struct.error, IndexError):
        raise MalformedDNS(f"{size} bytes end inside a record") from None


def answers(data: bytes, query: bytes, question: Question) -> bool:
    """Whether `data` answers `query` (whose ids the caller has compared): an answer, and to the same question.

    Case is the client's to check. Servers that did not understand a query may answer without the question.
    """
    if len(data) < HEADER_SIZE or not data[2] & (_QR >> 8):
        return False
    end = question.end
    if data[HEADER_SIZE:end] == query[HEADER_SIZE:end]:
        return data[4:6] == b"\0\1"
    if data[4:6] == b"\0\0":
        return data[3] & _RCODE != NOERROR
    name_end = end - 4
    return (
        data[4:6] == b"\0\1"
        and data[name_end:end] == query[name_end:end]
        and data[HEADER_SIZE:name_end].lower() == query[HEADER_SIZE:name_end].lower()
    )


def addresses(data: bytes, question: Question) -> tuple[list[bytes], int]:
    """The packed addresses that an answer gives, and the shortest TTL on the way to them.

    All A and AAAA records of the answer section count: the server says that they answer the question, whatever CNAMEs
    lie between. So do the address hints of HTTPS records (RFC 9460 section 7.3), which clients connect to. An answer
    that ends early, as a truncated one may, gives what was read.
    """
    packed: list[bytes] = []
    shortest = 0x7FFFFFFF
    offset, size = question.end, len(data)
    try:
        for _ in range(_U16.unpack_from(data, 6)[0]):
            offset = offset + 2 if data[offset] >= _POINTER else skip_name(data, offset)
            rtype, _, ttl, length = _RECORD.unpack_from(data, offset)
            start = offset + 10
            offset = start + length
            if offset > size:
                break
            if (rtype == A and length == 4) or (rtype == AAAA and length == 16):
                packed.append(data[start:offset])
            elif rtype == HTTPS:
                packed.extend(_hints(data, start, offset))
            elif rtype != CNAME:
                continue
            shortest = min(shortest, ttl)
    except (struct.error, IndexError, MalformedDNS):
        pass
    return packed, shortest


class ServiceBinding(NamedTuple):
    """An SVCB or HTTPS record's RDATA (RFC 9460 section 2.2). `target` is its offset."""

    priority: int
    target: int
    parameters: list[tuple[int, bytes]]


def service_binding(data: bytes, start: int, end: int) -> ServiceBinding:
    """Read the RDATA between `start` and `end`; keys must increase. Raises `MalformedDNS`."""
    try:
        (priority,) = _U16.unpack_from(data, start)
        offset = skip_name(data, start + 2)
        parameters: list[tuple[int, bytes]] = []
        while offset < end:
            key, length = struct.unpack_from("!HH", data, offset)
            value = data[offset + 4 : offset + 4 + length]
            offset += 4 + length
            if parameters and key <= parameters[-1][0]:
                raise MalformedDNS(f"service parameter {key} after {parameters[-1][0]}")
            parameters.append((key, value))
    except (struct.error, IndexError):
        offset = -1
    if offset != end:
        raise MalformedDNS(f"service binding at {start} does not fit its record")
    return ServiceBinding(priority, start + 2, parameters)


_HINT_SIZES = {4: 4, 6: 16}


def _hints(data: bytes, start: int, end: int) -> list[bytes]:
    return [
        value[at : at + size]
        for key, value in service_binding(data, start, end).parameters
        if (size := _HINT_SIZES.get(key)) and len(value) % size == 0
        for at in range(0, len(value), size)
    ]


def refusal(query: bytes, question: Question, rcode: int) -> bytes:
    """Our own answer to `query`: no records, `rcode`, the question as it was asked, EDNS where it was used (RFC 6891)."""
    ident, flags = struct.unpack_from("!HH", query)
    flags = _QR | (flags & _KEPT_IN_REFUSAL) | _RA | rcode
    opt = next((record for record in records(query, question.end) if record.rtype == OPT), None)
    head = _HEADER.pack(ident, flags, 1, 0, 0, 0 if opt is None else 1) + query[HEADER_SIZE : question.end]
    if opt is None:
        return head
    return head + b"\0" + _RECORD.pack(OPT, EDNS_UDP_SIZE, opt.ttl & _DO, len(_EDE_BLOCKED)) + _EDE_BLOCKED


class Ages(NamedTuple):
    """What a cache needs to know of an answer: where its TTLs are, and for how many seconds it is good."""

    offsets: tuple[int, ...]
    lifetime: int


def ages(data: bytes, question: Question) -> Ages | None:
    """The TTLs of an answer; None when it may not be kept (truncated, failed, or negative without SOA: RFC 2308)."""
    _, flags, _, count, _, _ = _HEADER.unpack_from(data)
    if flags & _TC or flags & _RCODE not in (NOERROR, NXDOMAIN):
        return None
    offsets = []
    lifetimes = []
    positive = bool(count)
    for record in records(data, question.end):
        if record.rtype == OPT:
            continue
        offsets.append(record.start - 6)
        lifetimes.append(record.ttl if record.ttl < 1 << 31 else 0)  # RFC 2181 section 8
        if record.section == 1 and record.rtype == SOA and record.end - record.start >= 22:
            lifetimes.append(int.from_bytes(data[record.end - 4 : record.end]))
            positive = True
    return Ages(tuple(offsets), min(lifetimes)) if positive and lifetimes else None
