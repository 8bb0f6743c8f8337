"""Take `ech` and HTTP/3 out of the SVCB and HTTPS records (RFC 9460) of an answer.

Cutting bytes moves what follows, and compressed names point at offsets. So a message that must change is written
anew: names compressed again where RFC 1035 allows it, everything else byte for byte. A validating client will find
that a signature over a changed record does not hold; AD is cleared, because it no longer speaks of this answer.
"""

import re
import struct

from weir_sidecar.wire.dns import (
    HEADER_SIZE,
    HTTPS,
    MAX_NAME,
    SVCB,
    MalformedDNS,
    Record,
    records,
    service_binding,
    skip_name,
)

_MANDATORY, _ALPN, _NO_DEFAULT_ALPN, _ECH = 0, 1, 2, 5
_AD = 0x20  # in the header's fourth byte
_POINTER = 0xC0
_MAX_POINTER = 0x3FFF
_MAX_HOPS = 32
"""Pointers in one name. Servers need a handful; a chain of thousands, walked for each record, would stop the loop."""
_MAX_MESSAGE = 65535
_SIGNATURE = re.compile(rb"\x00[\x40\x41]\x00\x01")  # type SVCB (64) or HTTPS (65), class IN

# RDATA that may hold compressed names (RFC 3597 section 4): bytes before the names, how many names, whether we may
# compress them when we write (RFC 1035 types only).
_NAMES: dict[int, tuple[int, int, bool]] = {
    **dict.fromkeys((2, 3, 4, 5, 7, 8, 9, 12), (0, 1, True)),  # NS MD MF CNAME MB MG MR PTR
    6: (0, 2, True),  # SOA
    14: (0, 2, True),  # MINFO
    15: (2, 1, True),  # MX
    17: (0, 2, False),  # RP
    18: (2, 1, False),  # AFSDB
    21: (2, 1, False),  # RT
    26: (2, 2, False),  # PX
    33: (6, 1, False),  # SRV
    36: (2, 1, False),  # KX
    39: (0, 1, False),  # DNAME
}


def may_bind_services(data: bytes) -> bool:
    """Whether an SVCB or HTTPS record may be in `data`; a quick no for nearly all answers."""
    return _SIGNATURE.search(data) is not None


def strip(data: bytes, question_end: int, *, ech: bool, h3: bool) -> bytes:
    """The answer without `ech` parameters, or without `h3` in ALPN lists, or both; the same object if it had none.

    A record that then offers nothing (h3 alone), and one that a client must reject (RFC 9460 section 2.2), is left
    out. `question_end` is the offset of the first record. Raises `MalformedDNS` when the message itself cannot be read.
    """
    found = list(records(data, question_end))
    edited: dict[int, bytes | None] = {}
    for record in found:
        if record.rtype in (SVCB, HTTPS):
            rdata = _edit(data, record, ech=ech, h3=h3)
            if rdata != data[record.start : record.end]:
                edited[record.start] = rdata
    return _write(data, question_end, found, edited) if edited else data


def _edit(data: bytes, record: Record, *, ech: bool, h3: bool) -> bytes | None:
    """The record's RDATA as it may pass; None: the record may not."""
    try:
        binding = service_binding(data, record.start, record.end)
        parameters = dict(binding.parameters)
        given = set(parameters)
        if ech:
            parameters.pop(_ECH, None)
        if h3 and _ALPN in parameters:
            protocols = [name for name in _strings(parameters[_ALPN]) if name != b"h3" and not name.startswith(b"h3-")]
            if not protocols and _NO_DEFAULT_ALPN in parameters:
                return None
            parameters[_ALPN] = b"".join(bytes((len(name),)) + name for name in protocols)
            if not protocols:
                del parameters[_ALPN]
    except MalformedDNS:
        return None
    if set(parameters) == given and list(parameters.items()) == binding.parameters:
        return data[record.start : record.end]
    gone = given - set(parameters)
    if _MANDATORY in parameters and gone:
        keys = parameters[_MANDATORY]
        kept = b"".join(
            keys[at : at + 2] for at in range(0, len(keys), 2) if int.from_bytes(keys[at : at + 2]) not in gone
        )
        parameters[_MANDATORY] = kept
        if not kept:
            del parameters[_MANDATORY]
    target = expand(data, binding.target, {})
    return (
        binding.priority.to_bytes(2)
        + target
        + b"".join(struct.pack("!HH", key, len(value)) + value for key, value in sorted(parameters.items()))
    )


def _strings(value: bytes) -> list[bytes]:
    """The length-prefixed strings in `value`."""
    strings = []
    offset = 0
    while offset < len(value):
        end = offset + 1 + value[offset]
        strings.append(value[offset + 1 : end])
        offset = end
    if offset != len(value):
        raise MalformedDNS("ALPN list ends inside a name")
    return strings


def expand(data: bytes, offset: int, known: dict[int, bytes], hops: int = 0) -> bytes:
    """The name at `offset` without compression, case kept. Pointers must go backwards. Raises `MalformedDNS`.

    `known` holds what pointers led to before, in the same message: each part of a name is walked once.
    """
    at = offset
    try:
        while 0 < (length := data[at]) < _POINTER:
            if length > 63 or at - offset + length + 2 > MAX_NAME:
                raise MalformedDNS(f"label of {length} bytes at {at}, name of {at - offset}")
            at += 1 + length
        if length == 0:
            return data[offset : at + 1]
        target = ((length & 0x3F) << 8) | data[at + 1]
    except IndexError:
        raise MalformedDNS("message ends inside a name") from None
    rest = known.get(target)
    if rest is None:
        if target >= offset or hops >= _MAX_HOPS:
            raise MalformedDNS(f"compression pointer to {target} does not go back, or is one of too many")
        rest = known[target] = expand(data, target, known, hops + 1)
    if at - offset + len(rest) > MAX_NAME:
        raise MalformedDNS(f"name of {at - offset + len(rest)} bytes at {offset}")
    return data[offset:at] + rest


class _Writer:
    """A message being written after `head`, with the names in it that later ones can point at."""

    def __init__(self, head: bytes) -> None:
        self.out = bytearray(head)
        self.known: dict[int, bytes] = {}
        self._seen: dict[bytes, int] = {}

    def remember(self, name: bytes, offset: int) -> None:
        """The uncompressed `name` is at `offset` already."""
        at = 0
        while at < len(name) - 1:
            self._seen[name[at:]] = offset + at
            at += 1 + name[at]

    def name(self, name: bytes, *, compress: bool = True) -> None:
        offset = 0
        while length := name[offset]:
            seen = self._seen.get(name[offset:])
            if compress and seen is not None:
                self.out += struct.pack("!H", _POINTER << 8 | seen)
                return
            if seen is None and len(self.out) <= _MAX_POINTER:
                self._seen[name[offset:]] = len(self.out)
            self.out += name[offset : offset + 1 + length]
            offset += 1 + length
        self.out.append(0)


def _write(data: bytes, question_end: int, found: list[Record], edited: dict[int, bytes | None]) -> bytes:
    writer = _Writer(data[:question_end])
    if question_end > HEADER_SIZE:
        writer.remember(data[HEADER_SIZE : question_end - 4], HEADER_SIZE)
    counts = [0, 0, 0]
    for record in found:
        rdata = edited.get(record.start, b"")
        if rdata is None:
            continue
        counts[record.section] += 1
        writer.name(expand(data, record.owner, writer.known))
        writer.out += struct.pack("!HHIH", record.rtype, record.rclass, record.ttl, 0)
        start = len(writer.out)
        if rdata:
            writer.out += rdata
        else:
            _copy_rdata(writer, data, record)
        # Written out, names can take far more than they did: what TCP cannot carry is not worth more time.
        if len(writer.out) > _MAX_MESSAGE:
            raise MalformedDNS("the edited message is larger than a message can be")
        struct.pack_into("!H", writer.out, start - 2, len(writer.out) - start)
    struct.pack_into("!HHH", writer.out, 6, *counts)
    writer.out[3] &= ~_AD
    return bytes(writer.out)


def _copy_rdata(writer: _Writer, data: bytes, record: Record) -> None:
    before, names, compress = _NAMES.get(record.rtype, (0, 0, False))
    offset = record.start + before
    writer.out += data[record.start : min(offset, record.end)]
    for _ in range(names if record.end > record.start else 0):
        writer.name(expand(data, offset, writer.known), compress=compress)
        offset = skip_name(data, offset)
    if offset > record.end and record.end > record.start:
        raise MalformedDNS(f"names at {record.start} go beyond their record")
    writer.out += data[offset : record.end]
