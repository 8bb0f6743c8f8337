"""Loopback, policy rules and the routes they lead to, by rtnetlink(7): a run of ip(8) for each would cost every pod's start.

Only what Weir uses: rules by firewall mark, and `local default dev lo`. linux/rtnetlink.h, linux/fib_rules.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Self

import msgspec

from weir_sidecar.netsetup.errors import DOCTOR, CaptureError

_NEWLINK, _NEWROUTE, _DELROUTE, _GETROUTE, _NEWRULE, _DELRULE, _GETRULE = 16, 24, 25, 26, 32, 33, 34
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _REPLACE, _EXCL, _CREATE = 1, 4, 0x300, 0x100, 0x200, 0x400
_RTA_OIF, _RTA_TABLE = 4, 15
_FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 6, 10, 15, 16
_BOOT, _SCOPE_HOST, _LOCAL, _TO_TABLE = 3, 254, 2, 1
_IFF_UP = 1
_LO = 1
"""The index of loopback, in every network namespace."""
_HEAD = struct.Struct("=IHHII")
_BODY = struct.Struct("=8BI")
"""struct rtmsg and struct fib_rule_hdr: both begin with the family, have the table fifth, and end with flags."""
_LINK = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_BYTES = 65536


class Rule(msgspec.Struct, frozen=True):
    """Packets whose mark, masked, is `mark` look up `table`; rules with a lower `priority` come first."""

    priority: int
    mark: int
    mask: int
    table: int


class Routing:
    """The kernel's routing, of the network namespace in which this is made. Every call may raise `CaptureError`."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def loopback_up(self) -> None:
        """`ip link set dev lo up`."""
        self._change(_NEWLINK, 0, _LINK.pack(0, 0, _LO, _IFF_UP, _IFF_UP))

    def add_route(self, family: int, table: int) -> None:
        """`ip route replace local default dev lo table TABLE`."""
        self._change(_NEWROUTE, _CREATE | _REPLACE, _route(family, table))

    def remove_route(self, family: int, table: int) -> None:
        """The route of `add_route`, if it is there."""
        self._change(_DELROUTE, 0, _route(family, table), fine=(errno.ESRCH,))

    def has_route(self, family: int, table: int) -> bool:
        """Whether the table has any route."""
        return table in [found.get(_RTA_TABLE) for found in self._dump(_GETROUTE, family)]

    def add_rule(self, family: int, rule: Rule) -> None:
        """`ip rule add priority … fwmark …/… lookup …`, unless it is there."""
        self._change(_NEWRULE, _CREATE | _EXCL, _rule(family, rule), fine=(errno.EEXIST,))

    def remove_rule(self, family: int, rule: Rule) -> None:
        """A rule that is there."""
        self._change(_DELRULE, 0, _rule(family, rule))

    def rules(self, family: int) -> tuple[Rule, ...]:
        """All rules; where one has no mark, mark and mask are 0."""
        keys = (_FRA_PRIORITY, _FRA_FWMARK, _FRA_FWMASK, _FRA_TABLE)
        return tuple(Rule(*(found.get(key, 0) for key in keys)) for found in self._dump(_GETRULE, family))

    def _change(self, kind: int, flags: int, body: bytes, fine: tuple[int, ...] = ()) -> None:
        self._send(kind, _REQUEST | _ACK | flags, body)
        for answer, data in self._answers():
            if answer == _ERROR:
                number = -struct.unpack_from("=i", data)[0]
                if number not in {0, *fine}:
                    raise _failed(kind, number)
                return

    def _dump(self, kind: int, family: int) -> Iterator[dict[int, int]]:
        """The attributes of four bytes of each object: marks, tables, and the like are such. To be read to the end."""
        self._send(kind, _REQUEST | _DUMP, _BODY.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
        for answer, data in self._answers():
            if answer == _ERROR:
                raise _failed(kind, -struct.unpack_from("=i", data)[0])
            if answer == _DONE:
                return
            yield dict(_numbers(data[_BODY.size :]))

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.send(_HEAD.pack(_HEAD.size + len(body), kind, flags, 0, 0) + body)

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        while True:
            data = self._socket.recv(_BYTES)
            while data:
                length, kind, _, _, _ = _HEAD.unpack_from(data)
                yield kind, data[_HEAD.size : length]
                data = data[(length + 3) & ~3 :]


def _route(family: int, table: int) -> bytes:
    head = _BODY.pack(family, 0, 0, 0, 0, _BOOT, _SCOPE_HOST, _LOCAL, 0)
    return head + _number(_RTA_OIF, _LO) + _number(_RTA_TABLE, table)


def _rule(family: int, rule: Rule) -> bytes:
    attributes = (
        (_FRA_PRIORITY, rule.priority),
        (_FRA_FWMARK, rule.mark),
        (_FRA_FWMASK, rule.mask),
        (_FRA_TABLE, rule.table),
    )
    head = _BODY.pack(family, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
    return head + b"".join(_number(kind, value) for kind, value in attributes)


def _number(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


def _numbers(data: bytes) -> Iterator[tuple[int, int]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length == 8:
            yield kind, struct.unpack_from("=I", data, 4)[0]
        data = data[max(4, (length + 3) & ~3) :]


def _failed(kind: int, number: int) -> CaptureError:
    what = {
        _NEWLINK: "set loopback up",
        _NEWROUTE: "add a route",
        _DELROUTE: "remove a route",
        _GETROUTE: "list routes",
        _NEWRULE: "add a policy rule",
        _DELRULE: "remove a policy rule",
        _GETRULE: "list policy rules",
    }
    return CaptureError(f"rtnetlink: {what[kind]}", os.strerror(number), DOCTOR)
