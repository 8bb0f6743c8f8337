"""Where records come from: a file, a sidecar of this machine, or the logs of a cluster's pods."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import BinaryIO

import msgspec

from weir_cli.cluster.records import Line, Pods, records
from weir_cli.control import Control, ControlError, state_directory

_POLL = 0.2
_ALL = 999_999_999
"""More than any sidecar keeps, and as much as it may be asked for."""


class File(msgspec.Struct, frozen=True):
    """What `weir run --record FILE` writes."""

    path: str


class Run(msgspec.Struct, frozen=True):
    """A sidecar on this machine, by its state directory or by the name of its run."""

    state: str | None
    name: str | None


type Source = File | Run | Pods


def lines(
    source: Source, last: int | None, stack: ExitStack, *, follow: bool, pause: Callable[[float], bool] | None = None
) -> Iterator[Line]:
    """The last records of the source (None: all it has), and with `follow` those that come, for ever.

    What has to be closed is left to the stack. `pause` waits for so many seconds where a source has to be asked again,
    and says whether that is to end. Raises `ControlError` and `KubectlError`, now or later.
    """
    match source:
        case File(path):
            return map(Line, _tail(_opened(path), last, follow=follow, pause=pause or Event().wait))
        case Run(state, name):
            control = stack.enter_context(Control(state_directory(state, name)))
            wanted = _ALL if last is None else last
            return map(Line, control.lines(f"/flows?last={wanted}{'&follow=1' if follow else ''}"))
        case Pods():
            return records(source, last, stack, follow=follow)


def _opened(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}") from error


def _tail(file: BinaryIO, last: int | None, *, follow: bool, pause: Callable[[float], bool]) -> Iterator[bytes]:
    """The last lines of a file, and with `follow` what is appended to it, until `pause` says to end. Closes the file."""
    with file:
        unfinished = b""  # a line without its end is still being written
        for line in file if last is None else _last(file, last):
            if line.endswith(b"\n"):
                yield line
            else:
                unfinished = line
        while follow:
            unfinished += file.readline()
            if unfinished.endswith(b"\n"):
                yield unfinished
                unfinished = b""
            elif pause(_POLL):
                return


def _last(file: BinaryIO, count: int) -> deque[bytes]:
    """The last whole lines, and after them what there is of another."""
    lines = deque(file, maxlen=count + 1)
    if len(lines) > count and lines[-1].endswith(b"\n"):
        lines.popleft()
    return lines
