"""Which UID opened a flow: asks the kernel for the client's own socket (sock_diag(7), NETLINK_SOCK_DIAG).

With TPROXY two sockets of the pod have mirrored addresses: the client's (local: the client's address, remote: the
original destination) and the one the sidecar accepted. The question names the client's, exactly, so the answer costs
one lookup in a hash table and needs no privilege. The answer is of the network namespace the socket was opened in.
"""

import socket
import struct
from functools import lru_cache

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_ALL_STATES = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
# Sockets in these states are stand-ins without an owner: the kernel says UID 0 for them whoever it was.
_TCP_TIME_WAIT, _TCP_LISTEN, _TCP_NEW_SYN_RECV = 6, 10, 12
_OWNERLESS = frozenset((_TCP_TIME_WAIT, _TCP_LISTEN, _TCP_NEW_SYN_RECV))

# nlmsghdr (length, type, flags, sequence, port), inet_diag_req_v2 (family, protocol, extensions, padding, states,
# then the socket's identity: ports, addresses, interface, cookie).
_REQUEST = struct.Struct("=IHHIIBBBBI4s16s16sI8s")
_PORTS = struct.Struct("!HH")
# nlmsghdr: type, sequence. inet_diag_msg: state; then, after timer, retransmits, the socket's identity and three
# counters: UID, inode.
_REPLY = struct.Struct("=4xH2xI5xB62xII")
_REPLY_ROOM = 4096
_REMEMBERED = 1024
_MAPPED = b"\x00" * 10 + b"\xff\xff"

type Endpoint = tuple[str, int] | tuple[str, int, int, int]
"""An address as `socket.getpeername()` gives it, IPv4 or IPv6."""


class SockDiag:
    """One open question line to the kernel. Open it in the pod's network namespace; close it when done."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        self._socket.setblocking(False)
        self._sequence = 0
        self._reply = bytearray(_REPLY_ROOM)

    def uid_of(self, client: Endpoint, destination: Endpoint, protocol: int) -> int | None:
        """The UID of the socket that `client` uses towards `destination`. None: there is none, or none any more.

        `protocol` is IPPROTO_TCP or IPPROTO_UDP.
        """
        if protocol == socket.IPPROTO_UDP:
            # Here local and remote are swapped, "for historical reasons" (udp_dump_one in net/ipv4/udp_diag.c).
            return self._uid(protocol, destination, client)
        return self._uid(protocol, client, destination)

    def close(self) -> None:
        """Close the line; later questions are errors."""
        self._socket.close()

    def _uid(self, protocol: int, source: Endpoint, destination: Endpoint) -> int | None:
        family, source_bytes = _packed(source[0])
        family_too, destination_bytes = _packed(destination[0])
        if family != family_too:
            return None
        self._sequence = sequence = (self._sequence + 1) & 0xFFFFFFFF
        # A link-local flow belongs to one interface; its scope id says which.
        interface = (source[3] or destination[3]) if len(source) == 4 and len(destination) == 4 else 0
        question = _REQUEST.pack(
            _REQUEST.size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, sequence, 0,
            family, protocol, 0, 0, _ALL_STATES,
            _PORTS.pack(source[1], destination[1]), source_bytes, destination_bytes, interface, _NO_COOKIE,
        )  # fmt: skip
        try:
            self._socket.send(question)
            return self._answer(sequence)
        except OSError:
            # No socket buffer, or a kernel without inet_diag: who it was cannot be known, and the flow goes on.
            return None

    def _answer(self, sequence: int) -> int | None:
        # The kernel answers inside send(), so there is nothing to wait for: an empty queue raises, and means None.
        while True:
            self._socket.recv_into(self._reply)
            kind, number, state, uid, inode = _REPLY.unpack_from(self._reply)
            if number == sequence:
                break  # anything else answers a question that was given up
        if kind != _SOCK_DIAG_BY_FAMILY:
            return None  # NLMSG_ERROR: no such socket; what is behind it in the buffer is older
        # A socket that its process has closed has no inode; older kernels then say UID 0 for everybody.
        unowned = state in _OWNERLESS or (uid == 0 and inode == 0)
        return None if unowned else int(uid)


@lru_cache(_REMEMBERED)
def _packed(address: str) -> tuple[int, bytes]:
    """Family and 16 bytes of an address; an IPv4-mapped IPv6 address is IPv4, as its packets are."""
    if ":" not in address:
        return socket.AF_INET, socket.inet_aton(address) + bytes(12)
    packed = socket.inet_pton(socket.AF_INET6, address)
    if packed.startswith(_MAPPED):
        return socket.AF_INET, packed[12:] + bytes(12)
    return socket.AF_INET6, packed
