"""The checksum of IP, TCP and ICMP (RFC 1071)."""

import struct


def internet_checksum(data: bytes) -> int:
    """The one's complement of the one's complement sum of `data`, in 16 bits."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
