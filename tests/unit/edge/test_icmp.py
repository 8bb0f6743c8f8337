import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.edge.icmp import Unreachable, family_of


class Raw:
    """Keeps what a raw socket would have sent."""

    def __init__(self) -> None:
        self.sent: list = []

    def sendto(self, data: bytes, address) -> None:
        self.sent.append((data, address))


def told(client, destination, error: int, datagram: bytes) -> list:
    raw = Raw()
    Unreachable({family_of(client): raw}).send(client, destination, error, datagram)
    return raw.sent


def folded(data: bytes) -> int:
    """The ones' complement sum that a receiver makes over a message with its checksum: all ones when it is right."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total


@given(st.binary(max_size=600), st.integers(0, 65535), st.integers(0, 65535))
def test_checksums_hold(datagram: bytes, port: int, other: int) -> None:
    ((message, _),) = told(("192.0.2.10", port), ("198.51.100.1", other), errno.ECONNREFUSED, datagram)
    assert folded(message) == 0xFFFF
    assert folded(message[8:28]) == 0xFFFF


@pytest.mark.parametrize(
    ("client", "destination", "header", "kind"),
    [
        (("192.0.2.10", 4000), ("198.51.100.1", 53), 28, b"\3\3"),
        (("2001:db8::10", 4000, 0, 7), ("2001:db8::53", 53, 0, 0), 48, b"\1\4"),
    ],
)
def test_quotes_the_datagram(client, destination, header: int, kind: bytes) -> None:
    ((message, address),) = told(client, destination, errno.ECONNREFUSED, b"data" * 200)
    family = family_of(client)
    assert address == (client[0], 0, *client[2:])
    assert message[:2] == kind
    assert socket.inet_pton(family, client[0]) + socket.inet_pton(family, destination[0]) in message[8:header]
    assert message[header : header + 6] == struct.pack("!HHH", 4000, 53, 808)
    assert message[header + 8 :].startswith(b"data" * 128)


@pytest.mark.parametrize(("error", "code"), [(errno.EHOSTUNREACH, 1), (errno.ENETUNREACH, 0), (errno.EACCES, 13)])
def test_the_code_is_what_the_clients_kernel_turns_back_into_the_error(error: int, code: int) -> None:
    ((message, _),) = told(("192.0.2.10", 1), ("198.51.100.1", 53), error, b"")
    assert message[:2] == bytes((3, code))


def test_other_errors_are_not_told() -> None:
    assert not told(("192.0.2.10", 1), ("198.51.100.1", 53), errno.EMFILE, b"")
