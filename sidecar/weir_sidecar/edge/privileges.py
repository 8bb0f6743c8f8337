"""Gives up root: the process ends as a UID of its own with at most the capabilities it must keep. capabilities(7).

In Kubernetes the sidecar starts as root with NET_RAW, NET_BIND_SERVICE, SETUID and SETGID and nothing else, because a
non-root container gets no effective capability at all; under `weir run` it starts with all of them. Both end alike.
"""

import os
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import ctypes

# linux/prctl.h
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
# linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522


class Capability(IntEnum):
    """The capabilities that matter here, by their number in linux/capability.h."""

    DAC_OVERRIDE = 1
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13


KEEP = frozenset((Capability.NET_RAW, Capability.NET_BIND_SERVICE))
"""What the proxy needs: transparent sockets, and DNS answers from port 53."""


class PrivilegeError(Exception):
    """Privileges could not be given up, or some were left; the text says which."""


class Status(msgspec.Struct, frozen=True):
    """What /proc/PID/status says of a process's privileges; capability sets as bit masks (proc(5))."""

    uids: frozenset[int]
    gids: frozenset[int]
    groups: frozenset[int]
    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int
    no_new_privs: bool
    threads: int

    def has(self, capability: Capability) -> bool:
        """Whether the capability is effective."""
        return bool(self.effective >> capability & 1)


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """For a while, look for files as `uid`: a container's root without DAC_OVERRIDE may not enter its directories.

    Needs root with SETUID. The effective capabilities are away meanwhile (capabilities(7)).
    """
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def drop(uid: int, gid: int, group: int | None = None, keep: Iterable[Capability] = KEEP) -> Status:
    """Become `uid` and `gid` and keep of `keep` what is there; for good. Says what the process has afterwards.

    To be called before the first thread starts: capabilities are per thread. `group` is the only supplementary group
    afterwards, if there is one. A process that already is `uid` and `gid` keeps its groups if it may not change them. The bounding set can be emptied only by who has
    SETPCAP; no_new_privs makes what is left of it worthless. Raises `PrivilegeError`.
    """
    import ctypes  # noqa: PLC0415 - a megabyte that only this function needs

    before = read_status()
    if before.threads != 1:
        raise PrivilegeError(f"privileges are dropped before threads start, but {before.threads} threads run")
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = _mask(keep) & before.permitted
    if before.has(Capability.SETPCAP):
        for number in range(_last_capability() + 1):
            _prctl(libc, _PR_CAPBSET_DROP, number)
    groups = frozenset[int]() if group is None else frozenset((group,))
    _change_identity(libc, before, uid, gid, groups)
    _prctl(libc, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(libc, wanted)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    # Keys are in memory: no core dump, and nobody of the same UID may attach.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(libc, _PR_SET_DUMPABLE, 0)
    after = read_status()
    left = leftovers(before, after, uid, gid, wanted, groups)
    if left:
        raise PrivilegeError(f"privileges are left after dropping to uid {uid}, gid {gid}: {', '.join(left)}")
    return after


def leftovers(  # noqa: PLR0913, PLR0917  (before, after, and all that was asked for)
    before: Status, after: Status, uid: int, gid: int, wanted: int, groups: frozenset[int] = frozenset()
) -> list[str]:
    """What a process has `after` a drop that it should not have, in words; empty when all is well."""
    groups_may_stay = before.groups if not before.has(Capability.SETGID) else groups
    bounding_may_stay = before.bounding if not before.has(Capability.SETPCAP) else 0
    checks = (
        (after.uids == {uid}, f"uids {sorted(after.uids)}"),
        (after.gids == {gid}, f"gids {sorted(after.gids)}"),
        (after.groups <= groups_may_stay, f"supplementary groups {sorted(after.groups)}"),
        (after.permitted == wanted, f"permitted capabilities {after.permitted:#x} instead of {wanted:#x}"),
        (after.effective == wanted, f"effective capabilities {after.effective:#x} instead of {wanted:#x}"),
        (after.inheritable == 0, f"inheritable capabilities {after.inheritable:#x}"),
        (after.ambient == 0, f"ambient capabilities {after.ambient:#x}"),
        (after.bounding & ~bounding_may_stay == 0, f"bounding set {after.bounding:#x}"),
        (after.no_new_privs, "no_new_privs is off"),
    )
    return [words for holds, words in checks if not holds]


def read_status(path: str = "/proc/self/status") -> Status:
    """Read a process's privileges from its status file."""
    # Bytes, not text: a codec may have to be loaded, and after the drop our files may not be readable any more.
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib stays out of the sidecar
        fields = {name: value.split() for name, _, value in (line.partition(b":") for line in file)}
    return Status(
        uids=frozenset(map(int, fields[b"Uid"])),
        gids=frozenset(map(int, fields[b"Gid"])),
        groups=frozenset(map(int, fields[b"Groups"])),
        inheritable=int(fields[b"CapInh"][0], 16),
        permitted=int(fields[b"CapPrm"][0], 16),
        effective=int(fields[b"CapEff"][0], 16),
        bounding=int(fields[b"CapBnd"][0], 16),
        ambient=int(fields[b"CapAmb"][0], 16),
        no_new_privs=fields[b"NoNewPrivs"][0] == b"1",
        threads=int(fields[b"Threads"][0]),
    )


def _change_identity(libc: "ctypes.CDLL", before: Status, uid: int, gid: int, groups: frozenset[int]) -> None:
    if before.has(Capability.SETGID):
        os.setgroups(list(groups))
    if before.uids == {uid} and before.gids == {gid}:
        return
    _prctl(libc, _PR_SET_KEEPCAPS, 1)
    try:
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except PermissionError as error:
        raise PrivilegeError(
            f"the process is uid {os.geteuid()}, gid {os.getegid()} and may not become uid {uid}, gid {gid}: start it "
            f"as those, or as root with the capabilities SETUID and SETGID",
        ) from error
    _prctl(libc, _PR_SET_KEEPCAPS, 0)


def _set_capabilities(libc: "ctypes.CDLL", wanted: int) -> None:
    import ctypes  # noqa: PLC0415 - see drop

    # capset(2): a header (version, 0 for this thread), then low and high word of effective, permitted, inheritable.
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = wanted & 0xFFFFFFFF, wanted >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    if libc.capset(header, data):
        raise PrivilegeError(f"capset to {wanted:#x}: {os.strerror(ctypes.get_errno())}")


def _prctl(libc: "ctypes.CDLL", option: int, value: int) -> None:
    import ctypes  # noqa: PLC0415 - see drop

    unsigned = ctypes.c_ulong
    if libc.prctl(option, unsigned(value), unsigned(0), unsigned(0), unsigned(0)):
        raise PrivilegeError(f"prctl({option}, {value}): {os.strerror(ctypes.get_errno())}")


def _mask(capabilities: Iterable[Capability]) -> int:
    mask = 0
    for capability in capabilities:
        mask |= 1 << capability
    return mask


def _last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:  # noqa: PTH123 - see read_status
        return int(file.read())
