"""The plugin on the node: its program, and its entry in the network configuration that the container runtime reads.

The main CNI owns that file and may write it anew at any time; then the entry is put back. Files appear whole, by a rename.
A file of one plugin alone has no place for our entry, and stays as it is: a list of that plugin and ours is put before it.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from weir_sidecar.node import conflist
from weir_sidecar.node.conflist import ConflistError

_SUFFIXES = (".conf", ".conflist", ".json")
_LIST = ".conflist"
_WRAP = "+weir-"
"""Our lists' names: this, which sorts before letters and digits, and the name of the file that each stands for."""
# Runtimes read names with the suffixes above alone.
_PART = ".weir-part"


class Installation:
    """What is on the node: `directory` has network configurations, `programs` has the plugins' programs."""

    def __init__(self, directory: str, programs: str, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._programs = programs
        self._say = say
        self._seen: tuple[tuple[str, int, int, int] | None, ...] | None = None

    def put_program(self, source: str) -> None:
        """The plugin's program, where it is missing or another one. Raises OSError."""
        target = f"{self._programs}/{conflist.TYPE}"
        with open(source, "rb") as file:  # noqa: PTH123 - as in the rest of the sidecar
            wanted = file.read()
        if _content(target) != wanted:
            _replace(target, wanted, 0o755)

    def look(self) -> None:
        """Put our entry into the configuration that the runtime uses, unless it is there. To be called again and again."""
        name = self._first()
        target = name if name is None or name.endswith(_LIST) else f"{_WRAP}{name}{_LIST}"
        for other in self._wraps():
            if other != target:
                self._unlink(other)  # what it stood for is gone, or comes first no longer
        if name is None or target is None:
            if self._seen is not None:
                self._say(f"{self._directory} has no network configuration any more; waiting for the main CNI's")
            self._seen = None
            return
        paths = f"{self._directory}/{name}", f"{self._directory}/{target}"
        if _states(*paths) != self._seen:
            with suppress(FileNotFoundError):  # it has gone again
                self._change(*paths, conflist.with_entry if name == target else conflist.wrapped)
            self._seen = _states(*paths)

    def remove(self) -> None:
        """Take out our entry, wherever it is, and then the program: nothing names it any more. Raises OSError."""
        for name in self._wraps():
            self._unlink(name)
        for name in self._names():
            path = f"{self._directory}/{name}"
            if name.endswith(_LIST):
                with suppress(FileNotFoundError):
                    self._change(path, path, conflist.without_entry)
        with suppress(FileNotFoundError):
            os.unlink(f"{self._programs}/{conflist.TYPE}")  # noqa: PTH108

    def _change(self, source: str, target: str, edit: Callable[[bytes], bytes]) -> None:
        """Write to `target` what `edit` makes of `source`; they may be one file."""
        with open(source, "rb") as file:  # noqa: PTH123
            before = file.read()
        try:
            after = edit(before)
        except ConflistError as error:
            # It may be half written: then another look finds more.
            self._say(f"{source}: {error}; {conflist.TYPE} cannot be added to it, and pods start without")
            return
        if after != _content(target):
            _replace(target, after, stat.S_IMODE(os.stat(source).st_mode))  # noqa: PTH116
            self._say(
                f"{target} has been changed: {conflist.TYPE} {'is in it' if conflist.TYPE.encode() in after else 'is out'}"
            )

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(f"{self._directory}/{name}")  # noqa: PTH108
        self._say(f"{self._directory}/{name} has been removed")

    def _first(self) -> str | None:
        """The file that runtimes take, if not for ours: the first by name."""
        names = self._names()
        return names[0] if names else None

    def _names(self) -> list[str]:
        return sorted(
            name
            for name in os.listdir(self._directory)  # noqa: PTH208
            if name.endswith(_SUFFIXES) and not name.startswith(_WRAP)
        )

    def _wraps(self) -> list[str]:
        return sorted(name for name in os.listdir(self._directory) if name.startswith(_WRAP))  # noqa: PTH208


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except FileNotFoundError:
        return None


def _states(*paths: str) -> tuple[tuple[str, int, int, int] | None, ...]:
    """What tells whether a file is the same still; None: it is not there."""
    return tuple(map(_state, paths))


def _state(path: str) -> tuple[str, int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None
    return path, found.st_ino, found.st_mtime_ns, found.st_size


def _replace(path: str, data: bytes, mode: int) -> None:
    part = f"{path}{_PART}"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.rename(part, path)  # noqa: PTH104
