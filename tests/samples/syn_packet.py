"""SYNs as packets, as a client's kernel sends them."""

import ipaddress
import struct

OPTIONS = bytes.fromhex("020405b40402080a0102030400000000" + "01030307")
ENDS = {4: (("10.0.0.2", 40000), ("192.0.2.1", 443)), 6: (("fd00::2", 40000), ("2001:db8::1", 443))}


def syn(version=4, flags=0x02, *, options=OPTIONS, sequence=0x01020304, ends=None, protocol=6) -> bytes:
    """A SYN from `ends[0]` to `ends[1]`, with a checksum that is not computed yet, as on loopback."""
    (client, client_port), (address, port) = ends or ENDS[version]
    offset = (20 + len(options)) // 4
    tcp = struct.pack("!HHIIBBHHH", client_port, port, sequence, 0, offset << 4, flags, 64240, 0xBEEF, 0) + options
    addresses = ipaddress.ip_address(client).packed + ipaddress.ip_address(address).packed
    if version == 4:
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 7, 0x4000, 64, protocol, 0) + addresses + tcp
    return struct.pack("!IHBB", 6 << 28, len(tcp), protocol, 64) + addresses + tcp
