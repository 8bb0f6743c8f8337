"""Where a run keeps things: the tmpfs of the sidecar, the user's --state directory, the record file."""

import os
from pathlib import Path

import msgspec

from weir_cli.pod import syscalls
from weir_cli.pod.errors import SetupError
from weir_cli.pod.names import Pod

_TMPFS_OPTIONS = "mode=0700,size=32m"


class Storage(msgspec.Struct, frozen=True):
    """The places of one run. `sidecar` is the sidecar's own state directory."""

    sidecar: Path
    record: Path | None
    pid_files: tuple[Path, ...]
    hidden: tuple[str, ...]
    read_only: tuple[str, ...]

    def record_size(self) -> int:
        """How long the record file is now, in bytes: a run adds to what is there."""
        return self.record.stat().st_size if self.record else 0

    def forget_process(self) -> None:
        """Remove what leads to a process that is gone: pid files, and the socket that a killed one leaves."""
        for path in (*self.pid_files, self.sidecar / "control.sock"):
            path.unlink(missing_ok=True)


def prepare(
    pod: Pod, state: Path | None, record: Path | None, person: tuple[int, int], proxy: tuple[int, int]
) -> Storage:
    """Make the user's directories and files, owned by `person`, with the sidecar's own part in them, by `proxy`."""
    sidecar = _state(state.absolute(), person, proxy) if state else pod.run
    pid_files = (pod.run / "proxy.pid", *([state.absolute() / "proxy.pid"] if state else []))
    target = _record(record.absolute(), person) if record else None
    read_only = (str(target),) if target and target.is_file() else ()
    return Storage(sidecar, target, pid_files, (str(sidecar),) if state else (), read_only)


def prepare_run(pod: Pod, proxy: tuple[int, int]) -> None:
    """The sidecar's tmpfs: the CA's key is never on a disk."""
    pod.run.mkdir(mode=0o700, exist_ok=True)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("tmpfs", pod.run, "tmpfs", flags, f"{_TMPFS_OPTIONS},uid={proxy[0]},gid={proxy[1]}")


def read_no_follow(path: Path) -> bytes:
    """A file of the sidecar's; a link there would make root read for it."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - a descriptor
            return file.read()
    except OSError as error:
        raise SetupError(f"the sidecar is ready and {path.name} cannot be read: {error.strerror}") from error


def _state(directory: Path, person: tuple[int, int], proxy: tuple[int, int]) -> Path:
    try:
        if not directory.exists():
            directory.mkdir(mode=0o755, parents=True)
            os.chown(directory, *person)
        own = directory / "sidecar"
        own.mkdir(mode=0o700, exist_ok=True)
        if own.is_symlink():
            raise SetupError(f"--state {directory}: {own} is a link; it must be a directory")
        os.chown(own, *proxy, follow_symlinks=False)
        own.chmod(0o700)
    except OSError as error:
        raise SetupError(f"--state {directory}: {error.strerror}: {error.filename}") from error
    return own


def _record(path: Path, person: tuple[int, int]) -> Path:
    try:
        existed = path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        if not existed:
            os.fchown(descriptor, *person)
        os.close(descriptor)
    except OSError as error:
        raise SetupError(f"--record {path}: {error.strerror}") from error
    return path
