"""Tries to read another process's memory: `python -m lab.prying PID UID…` prints what each UID got, as JSON.

Started as root it becomes each UID in turn, without any capability, and tries the same on PID and on a process of its
own, which shows that the attempt is a good one. An outcome is "done" or the name of the errno.
"""

import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17
_PIDFD_GETFD = 438
"""The same number on every architecture (syscalls(2)); libc has no name for it yet."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _memory_file(pid: int) -> None:
    """Read the first page that is mapped, which is the program itself."""
    first = Path(f"/proc/{pid}/maps").read_text().partition("-")[0]
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        memory.seek(int(first, 16))
        memory.read(16)


def _open_memory(pid: int) -> None:
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))


def _environment(pid: int) -> None:
    Path(f"/proc/{pid}/environ").read_bytes()


def _descriptors(pid: int) -> None:
    list(Path(f"/proc/{pid}/fd").iterdir())


def _descriptor(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        _checked(_libc.syscall(_PIDFD_GETFD, pidfd, 0, 0))
    finally:
        os.close(pidfd)


def _attach(pid: int) -> None:
    _checked(_libc.ptrace(_PTRACE_ATTACH, pid, None, None))
    os.waitpid(pid, 0x40000000)  # __WALL: the tracee need not be a child
    _checked(_libc.ptrace(_PTRACE_DETACH, pid, None, None))


def _vm_read(pid: int) -> None:
    """One byte from where nothing is: who may read is told that the address is bad (process_vm_readv(2))."""
    byte = ctypes.create_string_buffer(1)
    here = (ctypes.c_void_p * 2)(ctypes.addressof(byte), 1)
    there = (ctypes.c_void_p * 2)(1, 1)
    if _libc.process_vm_readv(pid, here, 1, there, 1, 0) < 0 and ctypes.get_errno() != errno.EFAULT:
        _checked(-1)


def _core(pid: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        argv = ["gcore", "-o", f"{directory}/core", str(pid)]
        subprocess.run(
            argv, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if not list(Path(directory).iterdir()):
            raise PermissionError(errno.EPERM, "no core was written")


ATTEMPTS: dict[str, Callable[[int], None]] = {
    "memory file": _memory_file,
    "memory file opened": _open_memory,
    "environment": _environment,
    "list of descriptors": _descriptors,
    "descriptor taken": _descriptor,
    "debugger": _attach,
    "memory read": _vm_read,
}
if shutil.which("gcore"):
    ATTEMPTS["core"] = _core


def _outcome(attempt: Callable[[int], None], pid: int) -> str:
    try:
        attempt(pid)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def _pry(pid: int, uid: int) -> dict[str, dict[str, str]]:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.environ["HOME"] = "/"
    os.chdir("/")
    with subprocess.Popen(["sleep", "600"]) as own:
        try:
            return {
                name: {"proxy": _outcome(attempt, pid), "own": _outcome(attempt, own.pid)}
                for name, attempt in ATTEMPTS.items()
            }
        finally:
            own.kill()


def main(pid: int, uids: list[int]) -> None:
    """Each UID in a process of its own: there is no way back to root."""
    found = {}
    for uid in uids:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, json.dumps(_pry(pid, uid)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            found[uid] = json.loads(answer.read())
        os.waitpid(child, 0)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(uid) for uid in sys.argv[2:]])
