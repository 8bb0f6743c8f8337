"""Leaves nothing behind: removes a pod by its name alone, whatever of it is there."""

import os
import shutil
import signal
import time
from pathlib import Path

from weir_cli.pod import host, ledger, namespace, syscalls
from weir_cli.pod.names import Pod
from weir_cli.pod.tools import attempt

_PROCESS_END = 2.0
_POLL = 0.01


def remove(pod: Pod) -> None:
    """Remove every trace of the pod, its lock last. Call inside `ledger.exclusive`."""
    _end_processes(pod.netns_path)
    if pod.netns_path.exists():
        attempt(["ip", "netns", "delete", pod.netns])
    # The kernel takes a namespace apart later, and the link with it: not so late that somebody sees it.
    attempt(["ip", "link", "delete", pod.link])
    host.disconnect(pod)
    while syscalls.is_mount(pod.run):
        syscalls.unmount(pod.run)
    for directory in (pod.run, pod.trust):
        shutil.rmtree(directory, ignore_errors=True)
    pod.lock.unlink(missing_ok=True)
    if not ledger.on_this_machine():
        host.restore()


def remove_stale() -> tuple[str, ...]:
    """Remove the pods whose run is gone; returns what was removed, in words. Call inside `ledger.exclusive`."""
    pods = ledger.stale()
    for pod in pods:
        remove(pod)
    orphans = host.orphaned_netns_configs()
    for directory in orphans:
        shutil.rmtree(directory)
    return tuple(f"pod {pod.name}" for pod in pods) + tuple(str(path) for path in orphans)


def leftovers() -> tuple[str, ...]:
    """What `remove_stale` would remove. Call inside `ledger.exclusive`."""
    stale = ledger.stale()
    return tuple(f"pod {pod.name}" for pod in stale) + tuple(map(str, host.orphaned_netns_configs()))


def _end_processes(netns: Path) -> None:
    """Kill what lives in the namespace, until nothing does: a killed parent may have had a child just before."""
    deadline = time.monotonic() + _PROCESS_END
    while (pids := namespace.processes(netns)) and time.monotonic() < deadline:
        for pid in pids:
            _kill(pid)
        time.sleep(_POLL)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
