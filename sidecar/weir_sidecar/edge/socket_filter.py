"""What a raw socket may receive: classic BPF, attached and locked (socket(7), Linux, networking/filter.rst).

Whoever has the socket, ourselves included, cannot take the filter off again.
"""

import socket
import struct
from array import array

from weir_sidecar.contract.config import Marks

_SO_ATTACH_FILTER, _SO_LOCK_FILTER = 26, 44

# linux/filter.h, linux/bpf_common.h: load a word, mask it, skip instructions by whether it equals, return.
_LOAD, _AND, _IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_MARK = 0xFFFFF000 + 20
"""SKF_AD_MARK: the packet's mark, in place of an offset into it."""
_WHOLE = 0xFFFFFFFF

type _Instruction = tuple[int, int, int, int]
"""Operation, instructions to skip if so and if not, value."""


def receive_captured(sock: socket.socket, marks: Marks) -> None:
    """Receive packets that bear the mark of captured ones: only rules give it, and no packet keeps it that leaves."""
    _lock(
        sock,
        (
            (_LOAD, 0, 0, _MARK),
            (_AND, 0, 0, marks.mask),
            (_IF_EQUAL, 0, 1, marks.mark),
            (_RETURN, 0, 0, _WHOLE),
            (_RETURN, 0, 0, 0),
        ),
    )


def receive_nothing(sock: socket.socket) -> None:
    """For sockets that only send."""
    _lock(sock, ((_RETURN, 0, 0, 0),))


def _lock(sock: socket.socket, code: tuple[_Instruction, ...]) -> None:
    program = array("B", b"".join(struct.pack("=HBBI", *instruction) for instruction in code))
    address, _ = program.buffer_info()
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(code), address))
    sock.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)
    # What came before the filter did.
    while not _is_empty(sock):
        pass


def _is_empty(sock: socket.socket) -> bool:
    try:
        sock.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    return False
