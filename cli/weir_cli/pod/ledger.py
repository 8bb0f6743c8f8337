"""Which pods there are, and whose. A pod's lock file exists as long as anything of the pod does; its run holds the lock.

The kernel lets go of a lock when its holder dies, however it dies: a lock file that nobody holds is a pod to remove.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weir_cli.pod import names
from weir_cli.pod.errors import SetupError
from weir_cli.pod.names import Pod


@contextmanager
def exclusive() -> Iterator[None]:
    """One at a time on this machine: making, finding and removing pods."""
    names.RUNTIME.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = _open(names.RUNTIME / ".exclusive")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def claim(pod: Pod) -> int:
    """Make the pod's lock file and hold it; the descriptor is the lock. Call inside `exclusive`."""
    descriptor = _open(pod.lock)
    if not _try(descriptor):
        holder = os.pread(descriptor, 64, 0).decode().partition(" ")[0]
        os.close(descriptor)
        raise SetupError(f"a pod named {pod.name} is running (process {holder}); choose another --name")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()} {machine()}".encode(), 0)
    return descriptor


def stale() -> tuple[Pod, ...]:
    """The pods whose run is gone. Call inside `exclusive`."""
    return tuple(pod for pod in known() if not _held(pod))


def known() -> tuple[Pod, ...]:
    """Every pod that has a lock file."""
    locks = sorted(names.RUNTIME.glob("*.lock")) if names.RUNTIME.is_dir() else []
    return tuple(Pod(path.stem) for path in locks if path.stem)


def on_this_machine() -> tuple[Pod, ...]:
    """Of the known pods those that hang on the network namespace we are in: a "machine" may itself be a namespace."""
    return tuple(pod for pod in known() if pod.lock.read_text().partition(" ")[2] == machine())


def machine() -> str:
    """The network namespace we are in, by its number (namespaces(7))."""
    return str(os.stat("/proc/self/ns/net").st_ino)  # noqa: PTH116 - beside the other calls of os


def _held(pod: Pod) -> bool:
    descriptor = _open(pod.lock)
    try:
        return not _try(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
