"""The system calls that Python has no function for. Each raises `OSError` with the kernel's errno."""

import ctypes
import os
from pathlib import Path

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _check(result: int, what: str | None = None) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: Path | str, target: Path | str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Put a file system at a place; the arguments are those of the system call."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    _check(_libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), str(target))


def bind(source: Path | str, target: Path | str, *, read_only: bool = True) -> None:
    """Make `source` appear at `target`; a bind mount takes its flags in a second step (mount(2))."""
    mount(source, target, None, MS_BIND)
    if read_only:
        mount("none", target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def unmount(target: Path | str) -> None:
    """umount2(2), now for new users and when the last one leaves for old ones."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), str(target))


def is_mount(target: Path) -> bool:
    """Whether something is mounted there, a bind mount of the same file system too, which os.path.ismount misses."""
    return target.exists() and _mount_id(target) != _mount_id(target.parent)


def _mount_id(path: Path) -> str:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    finally:
        os.close(descriptor)
    return next(line for line in lines if line.startswith("mnt_id:"))


def die_with_parent(signal_number: int) -> None:
    """Get `signal_number` when the parent dies (PR_SET_PDEATHSIG(2const)). A change of identity undoes it."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0))


def limit_capabilities(keep: frozenset[int]) -> None:
    """Take every capability that is not in `keep` from the bounding set and from this thread, for good."""
    number = 0
    while _libc.prctl(_PR_CAPBSET_READ, ctypes.c_ulong(number), 0, 0, 0) >= 0:
        if number not in keep:
            _check(_libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0))
        number += 1
    header = _CapHeader(_LINUX_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    _check(_libc.capget(ctypes.byref(header), data))
    for word, part in enumerate(data):
        mask = sum(1 << (number - 32 * word) for number in keep if 0 <= number - 32 * word < 32)
        part.effective &= mask
        part.permitted &= mask
        part.inheritable = 0
    _check(_libc.capset(ctypes.byref(header), data))
