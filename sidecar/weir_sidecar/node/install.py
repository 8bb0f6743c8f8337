"""The plugin on the node: its program, and its entry in the network configuration that the container runtime reads.

The main CNI owns that file and may write it anew at any time; then the entry is put back. Files appear whole, by a rename.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from weir_sidecar.node import conflist
from weir_sidecar.node.conflist import ConflistError

_SUFFIXES = (".conf", ".conflist", ".json")
# Runtimes read names with the suffixes above alone.
_PART = ".weir-part"


class Installation:
    """What is on the node: `directory` has network configurations, `programs` has the plugins' programs."""

    def __init__(self, directory: str, programs: str, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._programs = programs
        self._say = say
        self._seen: tuple[str, int, int, int] | None = None

    def put_program(self, source: str) -> None:
        """The plugin's program, where it is missing or another one. Raises OSError."""
        target = f"{self._programs}/{conflist.TYPE}"
        with open(source, "rb") as file:  # noqa: PTH123 - as in the rest of the sidecar
            wanted = file.read()
        if _content(target) != wanted:
            _replace(target, wanted, 0o755)

    def look(self) -> None:
        """Put our entry into the configuration that the runtime uses, unless it is there. To be called again and again."""
        path = self._first()
        if path is None:
            if self._seen is not None:
                self._say(f"{self._directory} has no network configuration any more; waiting for the main CNI's")
            self._seen = None
            return
        with suppress(FileNotFoundError):
            state = _state(path)
            if state != self._seen:
                self._change(path, conflist.with_entry)
                self._seen = _state(path)

    def remove(self) -> None:
        """Take out our entry, wherever it is, and then the program: nothing names it any more. Raises OSError."""
        for name in self._names():
            if name.endswith(".conflist"):
                with suppress(FileNotFoundError):
                    self._change(f"{self._directory}/{name}", conflist.without_entry)
        with suppress(FileNotFoundError):
            os.unlink(f"{self._programs}/{conflist.TYPE}")  # noqa: PTH108

    def _change(self, path: str, edit: Callable[[bytes], bytes]) -> None:
        with open(path, "rb") as file:  # noqa: PTH123
            before = file.read()
        try:
            after = edit(before)
        except ConflistError as error:
            # It may be half written: then another look finds more.
            self._say(f"{path}: {error}; the main CNI must have a .conflist, to which {conflist.TYPE} can be added")
            return
        if after != before:
            _replace(path, after, stat.S_IMODE(os.stat(path).st_mode))  # noqa: PTH116
            self._say(
                f"{path} has been changed: {conflist.TYPE} {'is in it' if conflist.TYPE.encode() in after else 'is out'}"
            )

    def _first(self) -> str | None:
        """The file that runtimes take: the first by name."""
        names = self._names()
        return f"{self._directory}/{names[0]}" if names else None

    def _names(self) -> list[str]:
        return sorted(name for name in os.listdir(self._directory) if name.endswith(_SUFFIXES))  # noqa: PTH208


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except FileNotFoundError:
        return None


def _state(path: str) -> tuple[str, int, int, int]:
    found = os.stat(path)  # noqa: PTH116
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
