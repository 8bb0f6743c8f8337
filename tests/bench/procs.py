"""What processes cost: CPU and memory of a process and all it started, from proc(5)."""

import os
from pathlib import Path

import msgspec

_TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


class Memory(msgspec.Struct, frozen=True):
    """MiB. PSS shares a page among the processes that map it, on the whole machine; RSS counts it whole for each."""

    pss: float
    rss: float


def tree(root: int, proc: Path = _PROC) -> list[int]:
    """The process and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in proc.iterdir():
        if entry.name.isdecimal() and (fields := _stat(entry)):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def cpu_us(root: int, proc: Path = _PROC) -> float:
    """Microseconds of CPU that the tree has used, in user mode and in the kernel, with children that have ended."""
    total = 0
    for pid in tree(root, proc):
        if fields := _stat(proc / str(pid)):
            total += sum(int(field) for field in fields[11:15])
    return total * _TICK


def memory(root: int, proc: Path = _PROC) -> Memory:
    """Memory of the tree."""
    sums = {"Pss:": 0, "Rss:": 0}
    for pid in tree(root, proc):
        for line in (proc / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
            name, number, *_ = line.split()
            if name in sums:
                sums[name] += int(number)
    return Memory(pss=sums["Pss:"] / 1024, rss=sums["Rss:"] / 1024)


def _stat(entry: Path) -> list[str] | None:
    """Fields from the state on (proc(5) counts it 3); None when the process has ended meanwhile."""
    try:
        text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold spaces and parentheses; its last one ends it.
    return text[text.rindex(")") + 2 :].split()
