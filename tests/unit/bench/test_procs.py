"""CPU and memory are those of a process and all below it, as proc(5) tells them."""

import os
from pathlib import Path

import pytest

from bench import procs

TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def proc(tmp_path):
    """A /proc: 10 started 11 and 12, 12 started 13; 20 is somebody else's."""

    def add(pid: int, parent: int, name: str, times: str, kib: int) -> None:
        entry = tmp_path / str(pid)
        entry.mkdir()
        (entry / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0 {times} 20 0 1 0 5\n")
        (entry / "smaps_rollup").write_text(
            f"55d0-7ffc ---p 00000000 00:00 0 [rollup]\nRss: {2 * kib} kB\nPss: {kib} kB\nPss_Anon: 7 kB\n"
        )

    add(10, 1, "proxy", "10 20 3 4", 1024)
    add(11, 10, "odd) S 10 (name", "1 2 0 0", 512)
    add(12, 10, "helper", "0 0 0 0", 512)
    add(13, 12, "helper of it", "100 0 0 0", 1024)
    add(20, 1, "other", "1000 1000 0 0", 4096)
    (tmp_path / "meminfo").write_text("")
    return tmp_path


def test_the_tree_has_every_generation_and_nobody_else(proc):
    assert sorted(procs.tree(10, proc)) == [10, 11, 12, 13]
    assert procs.tree(20, proc) == [20]


def test_cpu_counts_user_kernel_and_children_that_ended(proc):
    assert procs.cpu_us(10, proc) == (10 + 20 + 3 + 4 + 1 + 2 + 100) * TICK


def test_memory_sums_the_tree_in_mib(proc):
    assert procs.memory(10, proc) == procs.Memory(pss=3, rss=6)


def test_a_process_that_ended_meanwhile_counts_nothing(proc):
    (Path(proc) / "11" / "stat").unlink()
    assert sorted(procs.tree(10, proc)) == [10, 12, 13]
