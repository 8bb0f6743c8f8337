import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.edge.icmp import family_of, unreachable


def folded(data: bytes) -> int:
    """The ones' complement sum that a receiver makes over a message with its checksum: all ones when it is right."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total


@given(st.binary(max_size=600), st.integers(0, 65535), st.integers(0, 65535))
def test_checksums_hold(datagram: bytes, port: int, other: int) -> None:
    message = unreachable(3, 3, ("192.0.2.10", port), ("198.51.100.1", other), datagram)
    assert folded(message) == 0xFFFF
    assert folded(message[8:28]) == 0xFFFF


@pytest.mark.parametrize("client", [("192.0.2.10", 4000), ("2001:db8::10", 4000, 0, 0)])
def test_quotes_the_datagram(client) -> None:
    family = family_of(client)
    destination = ("198.51.100.1", 53) if family == socket.AF_INET else ("2001:db8::53", 53, 0, 0)
    message = unreachable(1, 4, client, destination, b"data" * 200)
    header = 8 + (20 if family == socket.AF_INET else 40)
    assert message[:2] == b"\1\4"
    assert socket.inet_pton(family, client[0]) + socket.inet_pton(family, destination[0]) in message[8:header]
    assert message[header : header + 6] == struct.pack("!HHH", 4000, 53, 808)
    assert message[header + 8 :] == b"data" * 128
