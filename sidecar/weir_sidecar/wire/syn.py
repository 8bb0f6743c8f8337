"""A client's SYN as a packet: read it, send it again, refuse it (RFC 9293, RFC 791, RFC 8200).

The sidecar holds a client's SYN until the upstream has answered its own; then it sends the client's SYN again, changed
only so that the kernel knows it, or the reset that the upstream sent. On its way to the sidecar a held SYN has another
protocol number in its IP header, so that the kernel gives it to raw sockets and not to TCP.
"""

import struct
from ipaddress import IPv6Address

import msgspec

from weir_sidecar.wire.checksum import internet_checksum

ADMITTED_HOPS = 255
"""TTL or hop limit of a SYN that is sent again. A rule of capture holds all others."""

HELD_PROTOCOL = 253
"""What a rule of capture makes of TCP's protocol number in a SYN that is held: for experiments (RFC 3692, RFC 4727)."""

_TCP = 6
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_V6_HEADER = 40
_HOPS = 64
_HEADER4 = struct.Struct("!BBHHHBBH4s4s")
_HEADER6 = struct.Struct("!IHBB16s16s")
_RESET = struct.Struct("!HHIIBBHHH")


class Syn(msgspec.Struct, frozen=True):
    """One SYN. Addresses as text; `header` is the length of the IP header in `packet`."""

    client: tuple[str, int]
    destination: tuple[str, int]
    sequence: int
    packet: bytes
    header: int


def held4(packet: bytes) -> Syn | None:
    """Read a held SYN as an IPv4 raw socket gives it: from the IP header on (raw(7)). None for all else."""
    return parse(packet[:9] + bytes((_TCP,)) + packet[10:])


def held6(segment: bytes, client: bytes, destination: bytes) -> Syn | None:
    """Read a held SYN as an IPv6 raw socket gives it: without its header (RFC 3542, section 3), so one is made."""
    return parse(_HEADER6.pack(6 << 28, len(segment), _TCP, _HOPS, client, destination) + segment)


def parse(packet: bytes) -> Syn | None:
    """Read a packet from its IP header on; None for all that is not a whole SYN."""
    if not packet:
        return None
    v4 = packet[0] >> 4 == 4
    header = (packet[0] & 0x0F) * 4 if v4 else _V6_HEADER
    if len(packet) < header + 20 or packet[9 if v4 else 6] != _TCP or header < 20:
        return None
    if packet[header + 13] & (_SYN | _ACK | _RST) != _SYN:
        return None
    source, destination = _addresses(packet)
    client_port, port, sequence = struct.unpack_from("!HHI", packet, header)
    return Syn((_text(source), client_port), (_text(destination), port), sequence, packet, header)


def _text(address: bytes) -> str:
    return ".".join(map(str, address)) if len(address) == 4 else str(IPv6Address(address))


def admitted(syn: Syn) -> bytes:
    """The same SYN with `ADMITTED_HOPS` and a whole checksum: on loopback the kernel leaves it to the card."""
    packet = bytearray(syn.packet)
    packet[8 if packet[0] >> 4 == 4 else 7] = ADMITTED_HOPS
    return _with_checksum(bytes(packet[: syn.header]), bytes(packet[syn.header :]))


def reset(syn: Syn) -> bytes:
    """What a closed port answers (RFC 9293, section 3.10.7.1)."""
    source, destination = _addresses(syn.packet)
    tcp = _RESET.pack(syn.destination[1], syn.client[1], 0, (syn.sequence + 1) % 2**32, 5 << 4, _RST | _ACK, 0, 0, 0)
    if len(source) == 4:
        ip = _HEADER4.pack(0x45, 0, 20 + len(tcp), 0, 0, _HOPS, _TCP, 0, destination, source)
    else:
        ip = _HEADER6.pack(6 << 28, len(tcp), _TCP, _HOPS, destination, source)
    return _with_checksum(ip, tcp)


def _addresses(packet: bytes) -> tuple[bytes, bytes]:
    if packet[0] >> 4 == 4:
        return packet[12:16], packet[16:20]
    return packet[8:24], packet[24:40]


def _with_checksum(ip: bytes, tcp: bytes) -> bytes:
    source, destination = _addresses(ip)
    pseudo = source + destination + struct.pack("!HH", _TCP, len(tcp))
    blank = tcp[:16] + b"\0\0" + tcp[18:]
    return ip + blank[:16] + struct.pack("!H", internet_checksum(pseudo + blank)) + blank[18:]
