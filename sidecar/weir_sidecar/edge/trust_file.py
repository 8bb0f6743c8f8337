"""The trust cache on disk: `trust.json` in the state directory, replaced as a whole so that no reader sees half a file.

The directory is a descriptor, because the sidecar opens it before it drops its privileges. The state directory of a pod
is a tmpfs, which outlives the process and not the machine: nothing is synced.
"""

import os
from collections.abc import Callable
from typing import Protocol

import msgspec

from weir_sidecar.contract.config import FailOpen
from weir_sidecar.core.trust_cache import TrustCache
from weir_sidecar.core.trust_dump import TrustDumpError

NAME = "trust.json"
DAMAGED = "trust.json.damaged"
"""Where a file that could not be read is kept: a person's words may be in it."""

SAVE_INTERVAL = 1.0
"""Seconds in which changes are gathered before they are saved."""


def read(dir_fd: int) -> bytes | None:
    """The file's content; None when there is none. Raises `OSError` when it cannot be read."""
    try:
        fd = os.open(NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read()


def write(dir_fd: int, data: bytes) -> None:
    """Replace the file, readable by its owner alone. Raises `OSError`; the old file is whole then."""
    temporary = f".{NAME}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=dir_fd), "wb") as file:
            file.write(data)
        os.replace(temporary, NAME, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        _remove(dir_fd, temporary)
        raise


def _remove(dir_fd: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return


class Loaded(msgspec.Struct, frozen=True):
    """A cache to start with, and what kept it from being the one on disk (to be recorded); None: nothing did."""

    cache: TrustCache
    problem: TrustDumpError | OSError | None


def load(dir_fd: int, settings: FailOpen, *, workload: str, authority: str, canary_wait: float) -> Loaded:
    """The cache as it was saved; empty when there is none or it cannot be read. A damaged file is kept as `DAMAGED`."""
    empty = TrustCache(settings, workload, authority=authority, canary_wait=canary_wait)
    try:
        data = read(dir_fd)
        if data is None:
            return Loaded(empty, None)
        return Loaded(
            TrustCache.load(data, settings, workload=workload, authority=authority, canary_wait=canary_wait), None
        )
    except OSError as problem:
        return Loaded(empty, problem)
    except TrustDumpError as problem:
        _set_aside(dir_fd)
        return Loaded(empty, problem)


def _set_aside(dir_fd: int) -> None:
    try:
        os.replace(NAME, DAMAGED, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        return  # the problem that is told is that the file is damaged; that it could not be kept adds nothing


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None:
        """Forget the call."""


class Saver:
    """Saves the cache when it has changed, at most once in `SAVE_INTERVAL`, and on `close`.

    `call_later` is the event loop's, `now` the wall clock. `problem` is what the last attempt failed with, if it did;
    the next change tries again.
    """

    def __init__(
        self,
        dir_fd: int,
        cache: TrustCache,
        call_later: Callable[[float, Callable[[], None]], Timer],
        now: Callable[[], float],
    ) -> None:
        self.problem: OSError | None = None
        self._dir_fd = dir_fd
        self._cache = cache
        self._call_later = call_later
        self._now = now
        self._saved_revision = cache.revision
        self._timer: Timer | None = None

    def notice(self) -> None:
        """To be called after anything that may have changed the cache. Costs next to nothing when nothing has."""
        if self._timer is None and self._cache.revision != self._saved_revision:
            self._timer = self._call_later(SAVE_INTERVAL, self.save)

    def save(self) -> None:
        """Save now, if there is anything new."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        revision = self._cache.revision
        if revision == self._saved_revision:
            return
        try:
            write(self._dir_fd, self._cache.dump(self._now()))
        except OSError as problem:
            self.problem = problem
        else:
            self.problem = None
            self._saved_revision = revision

    def close(self) -> None:
        """Save what is left, counters included."""
        self._saved_revision = -1
        self.save()
