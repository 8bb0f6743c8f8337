import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samples.syn_packet import OPTIONS, syn
from weir_sidecar.wire.syn import ADMITTED_HOPS, HELD_PROTOCOL, admitted, held4, held6, parse, reset


def verifies(packet: bytes) -> bool:
    """The receiver's check of RFC 9293: all words of pseudo header and segment sum up to ones."""
    header = 20 if packet[0] >> 4 == 4 else 40
    ends = packet[12:20] if header == 20 else packet[8:40]
    data = ends + struct.pack("!HH", 6, len(packet) - header) + packet[header:]
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


@pytest.mark.parametrize(
    ("version", "client", "destination"), [(4, "10.0.0.2", "192.0.2.1"), (6, "fd00::2", "2001:db8::1")]
)
def test_a_syn_is_read_and_sent_again_as_it_was(version: int, client: str, destination: str) -> None:
    packet = syn(version)
    read = parse(packet)
    assert read is not None
    assert (read.client, read.destination, read.sequence) == ((client, 40000), (destination, 443), 0x01020304)
    again = admitted(read)
    hops = 8 if version == 4 else 7
    assert again[hops] == ADMITTED_HOPS
    assert verifies(again)
    assert again.endswith(OPTIONS)
    changed = [at for at, (a, b) in enumerate(zip(packet, again, strict=True)) if a != b]
    assert set(changed) <= {hops, read.header + 16, read.header + 17}


def test_a_held_syn_is_read_as_the_kernel_gives_it() -> None:
    assert held4(syn(4, protocol=HELD_PROTOCOL)) == parse(syn(4))
    packet = syn(6)
    assert held6(packet[40:], packet[8:24], packet[24:40]) == parse(packet)


@given(st.binary(max_size=200), st.binary(min_size=16, max_size=16))
def test_any_bytes_that_are_held_are_read_or_are_none(data: bytes, address: bytes) -> None:
    for read in (held4(data), held6(data, address, address)):
        assert read is None or parse(read.packet) == read


@pytest.mark.parametrize("version", [4, 6])
def test_a_refusal_is_what_a_closed_port_sends(version: int) -> None:
    read = parse(syn(version, sequence=0xFFFFFFFF))
    assert read is not None
    packet = reset(read)
    header = 20 if version == 4 else 40
    assert verifies(packet)
    source, target, _, acknowledged, _, flags = struct.unpack_from("!HHIIBB", packet, header)
    assert (source, target, acknowledged, flags) == (443, 40000, 0, 0x14)
    ends = (packet[12:16], packet[16:20]) if version == 4 else (packet[8:24], packet[24:40])
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    assert [socket.inet_ntop(family, end) for end in ends] == [read.destination[0], read.client[0]]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", [0x12, 0x10, 0x04, 0x06, 0x11, 0x00])
def test_only_a_syn_is_one(version: int, flags: int) -> None:
    assert parse(syn(version, flags)) is None


@pytest.mark.parametrize("version", [4, 6])
def test_a_syn_with_ecn_is_one(version: int) -> None:
    assert parse(syn(version, 0xC2)) is not None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_are_none(data: bytes) -> None:
    read = parse(data)
    if read is not None:
        assert verifies(admitted(read)) or len(data) % 2
        assert verifies(reset(read))


@given(st.sampled_from([4, 6]), st.data())
def test_a_part_of_a_syn_is_none(version: int, data: st.DataObject) -> None:
    packet = syn(version, options=b"")
    assert parse(packet[: data.draw(st.integers(0, len(packet) - 1))]) is None
