"""The trust cache on disk: replaced whole, private, saved in time, and never a reason not to start."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from weir_sidecar.contract.config import FailOpen
from weir_sidecar.core.trust_cache import TrustCache
from weir_sidecar.core.trust_dump import TrustDumpError
from weir_sidecar.edge import trust_file

SETTINGS = FailOpen()


@pytest.fixture
def dir_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def load(dir_fd: int) -> trust_file.Loaded:
    return trust_file.load(dir_fd, SETTINGS, workload="w", authority="ca", canary_wait=5.0)


def pinned_hosts(cache: TrustCache) -> list[str]:
    return [entry.host for entry in cache.entries(0.0)]


def test_what_is_written_is_read_by_its_owner_alone(tmp_path: Path, dir_fd: int) -> None:
    trust_file.write(dir_fd, b"one")
    trust_file.write(dir_fd, b"two")
    assert trust_file.read(dir_fd) == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["trust.json"]
    assert (tmp_path / "trust.json").stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_the_old_file_and_no_crumbs(tmp_path: Path, dir_fd: int) -> None:
    (tmp_path / "trust.json").mkdir()
    with pytest.raises(IsADirectoryError):
        trust_file.write(dir_fd, b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["trust.json"]


def test_a_link_is_not_followed(tmp_path: Path, dir_fd: int) -> None:
    (tmp_path / "elsewhere").write_bytes(b"untouched")
    (tmp_path / "trust.json").symlink_to("elsewhere")
    assert isinstance(load(dir_fd).problem, OSError)
    trust_file.write(dir_fd, b"x")
    assert (tmp_path / "elsewhere").read_bytes() == b"untouched"


def test_no_file_is_an_empty_cache(dir_fd: int) -> None:
    loaded = load(dir_fd)
    assert loaded.problem is None
    assert pinned_hosts(loaded.cache) == []


def test_a_damaged_file_is_told_and_kept(tmp_path: Path, dir_fd: int) -> None:
    trust_file.write(dir_fd, b"{")
    loaded = load(dir_fd)
    assert isinstance(loaded.problem, TrustDumpError)
    assert pinned_hosts(loaded.cache) == []
    assert (tmp_path / "trust.json.damaged").read_bytes() == b"{"
    assert trust_file.read(dir_fd) is None


class Clock:
    """Stands for the event loop's timers."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> "Clock":
        self.calls.append((delay, callback))
        return self

    def cancel(self) -> None:
        self.calls.clear()

    def fire(self) -> None:
        ((_, callback),) = self.calls
        self.calls.clear()
        callback()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache() -> TrustCache:
    return TrustCache(SETTINGS, "w", authority="ca")


@pytest.fixture
def saver(dir_fd: int, cache: TrustCache, clock: Clock) -> trust_file.Saver:
    return trust_file.Saver(dir_fd, cache, clock.call_later, lambda: 0.0)


def test_changes_are_gathered_and_saved_once(
    dir_fd: int, cache: TrustCache, saver: trust_file.Saver, clock: Clock
) -> None:
    saver.notice()
    assert clock.calls == []
    for host in ("a", "b", "c"):
        cache.pin(host, None, None, 0.0)
        saver.notice()
    assert [delay for delay, _ in clock.calls] == [1.0]
    assert trust_file.read(dir_fd) is None
    clock.fire()
    assert pinned_hosts(load(dir_fd).cache) == ["a", "b", "c"]
    saver.notice()
    assert clock.calls == []


def test_closing_saves_what_is_left(dir_fd: int, cache: TrustCache, saver: trust_file.Saver, clock: Clock) -> None:
    cache.pin("a", None, None, 0.0)
    saver.notice()
    saver.close()
    assert clock.calls == []
    assert pinned_hosts(load(dir_fd).cache) == ["a"]


def test_a_save_that_fails_is_told_and_tried_again(
    tmp_path: Path, dir_fd: int, cache: TrustCache, saver: trust_file.Saver, clock: Clock
) -> None:
    (tmp_path / "trust.json").mkdir()
    cache.pin("a", None, None, 0.0)
    saver.save()
    assert isinstance(saver.problem, IsADirectoryError)
    (tmp_path / "trust.json").rmdir()
    saver.notice()
    clock.fire()
    assert saver.problem is None
    assert pinned_hosts(load(dir_fd).cache) == ["a"]
