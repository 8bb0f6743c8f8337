"""nftables from within this process: nft(8)'s own library, and one question asked of the kernel itself.

Four runs of the program would be most of what a pod's set-up costs. libnftables(3); linux/netfilter/nf_tables.h.
"""

import ctypes
import errno
import os
import socket
import struct
from enum import IntEnum
from functools import cache
from typing import Self

from weir_sidecar.netsetup.errors import DOCTOR, CaptureError

_LIBRARY = "libnftables.so.1"
_NETLINK_NETFILTER = 12
_GET_TABLE = 10 << 8 | 1
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE."""
_REQUEST, _ERROR = 1, 2
_NAME, _USER_DATA, _COMMENT = 1, 6, 0
"""NFTA_TABLE_NAME, NFTA_TABLE_USERDATA, and in what that holds NFTNL_UDATA_TABLE_COMMENT."""
_HEAD = struct.Struct("=IHHII")
_FAMILY = struct.Struct("=BBH")
"""struct nfgenmsg."""
_ATTRIBUTE = struct.Struct("=HH")
_BYTES = 65536
_SECONDS = 30


class Family(IntEnum):
    """NFPROTO_INET and so on, of linux/netfilter.h."""

    INET = 1
    IP = 2
    IP6 = 10


class Nft:
    """Runs commands in the network namespace in which this is made. With `dry_run` the kernel is asked, and nothing done.

    To close it after a ruleset was replaced takes some milliseconds, in which the kernel lets go of the old one.
    """

    def __init__(self, *, dry_run: bool = False) -> None:
        self._library = _libnftables()
        self._context: int | None = self._library.nft_ctx_new(0)
        self._library.nft_ctx_set_dry_run(self._context, dry_run)
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Once or more often."""
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
        self._context = None

    def run(self, text: str, advice: str = DOCTOR) -> None:
        """What `nft --file` does with a file of this text: all of it or nothing. Raises `CaptureError`."""
        if self._library.nft_run_cmd_from_buffer(self._context, text.encode()):
            said = self._library.nft_ctx_get_error_buffer(self._context).decode("utf-8", "replace")
            found = " / ".join(line.strip() for line in said.splitlines() if line.strip())
            raise CaptureError("nft", found or "failed and did not say why", advice)


def comment_of(table: str, family: Family = Family.INET) -> str | None:
    """The comment of a table; empty: it has none; None: there is no such table. Raises `CaptureError`."""
    name = table.encode() + b"\0"
    body = (
        _FAMILY.pack(family, 0, 0) + _ATTRIBUTE.pack(_ATTRIBUTE.size + len(name), _NAME) + name + bytes(-len(name) % 4)
    )
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as asking:
            asking.settimeout(_SECONDS)
            asking.send(_HEAD.pack(_HEAD.size + len(body), _GET_TABLE, _REQUEST, 0, 0) + body)
            answer = asking.recv(_BYTES)
    except OSError as error:
        raise _failed(error.strerror or str(error)) from error
    length, kind, *_ = _HEAD.unpack_from(answer)
    data = answer[_HEAD.size : length]
    if kind == _ERROR:
        number = -struct.unpack_from("=i", data)[0]
        if number == errno.ENOENT:
            return None
        raise _failed(os.strerror(number))
    return _comment(data[_FAMILY.size :])


def _comment(attributes: bytes) -> str:
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == _USER_DATA:
            return _text(attributes[_ATTRIBUTE.size : length])
        attributes = attributes[max(_ATTRIBUTE.size, (length + 3) & ~3) :]
    return ""


def _text(data: bytes) -> str:
    """The comment among what a program may keep with a table: kind, length, and so many bytes, each time anew."""
    while len(data) > 2:
        kind, length = data[0], data[1]
        if kind == _COMMENT:
            return data[2 : 2 + length].rstrip(b"\0").decode("utf-8", "replace")
        data = data[2 + length :]
    return ""


def _failed(found: str) -> CaptureError:
    return CaptureError("nfnetlink: get a table", found, DOCTOR)


@cache
def _libnftables() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise CaptureError(_LIBRARY, str(error), "install the package nftables") from error
    context = ctypes.c_void_p
    library.nft_ctx_new.argtypes, library.nft_ctx_new.restype = [ctypes.c_uint32], context
    library.nft_ctx_free.argtypes = [context]
    library.nft_ctx_set_dry_run.argtypes = [context, ctypes.c_bool]
    library.nft_ctx_buffer_output.argtypes = [context]
    library.nft_ctx_buffer_error.argtypes = [context]
    library.nft_ctx_get_error_buffer.argtypes = [context]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    library.nft_run_cmd_from_buffer.argtypes = [context, ctypes.c_char_p]
    return library
