"""However `weir run` ends, nothing of it is left: no namespace, link, table, route, rule, mount, file or process.

On a machine of its own, with the real sidecar. After `kill -9` it is the next run, or `weir doctor --clean`, that removes
what is left; it may come at any moment, also while a pod is being made.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.lab import WEIR
from netns.machine import ORIGIN, Machine, eventually

pytestmark = pytest.mark.netns

ASK = (
    f"import socket; s = socket.create_connection(('{ORIGIN}', 80), 5); print(s.makefile().read().strip(), flush=True)"
)
WORK = f"{ASK}; import time; time.sleep(600)"
"""A command that has been proxied once, and stays."""
KILLS = 8
_number = itertools.count()


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine() as made:
        yield made


class Weir:
    """One `weir run` of the machine, whose every process has its name in its command line or its namespace."""

    def __init__(self, machine: Machine, script: str) -> None:
        self.name = f"left-{os.getpid()}-{next(_number)}"
        self._machine = machine
        argv = [str(WEIR), "run", "--quiet", "--name", self.name, "--", sys.executable, "-c", script, self.name]
        # A shell's background jobs, and all below them, ignore SIGINT.
        argv = ["env", "--default-signal=INT", *argv]
        self.process = subprocess.Popen(
            machine.inside(*argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def end(self) -> tuple[int, str]:
        """The status, and what was said to the end."""
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def stop(self, number: signal.Signals) -> None:
        """Send the signal, wait for the end, and press Ctrl-C once more where no line of ours had run at the first.

        CPython looks whether argv[0] is an import path entry before it runs anything, prints an exception that
        is raised there, KeyboardInterrupt too, and goes on (`pymain_get_importer` in Modules/main.c).
        """
        self.process.send_signal(number)
        try:
            self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired as unended:
            if b"Failed checking if argv[0]" not in (unended.stdout or b""):
                raise
            self.process.send_signal(number)
            self.end()

    def processes(self) -> list[str]:
        """Its processes: the program, the sidecar and the command carry the name."""
        return [words for words in _command_lines() if self.name in words]


def _command_lines() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                yield (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # It ended meanwhile.


def _clean(machine: Machine) -> str:
    """`weir doctor --clean`; what it says."""
    return machine.call(str(WEIR), "doctor", "--clean").stdout


def _next_run(machine: Machine) -> str:
    """Another `weir run`; what it says."""
    done = machine.call(str(WEIR), "run", "--name", "next", "--", "true")
    assert done.returncode == 0, done.stderr
    return done.stderr


def _lines(traces: dict[str, str]) -> dict[str, list[str]]:
    """The same without order: a file that was written anew is listed elsewhere.

    And without link-local addresses: the kernel adds a link's own a second or two after the link (RFC 4862, 5.4).
    """
    return {what: sorted(line for line in text.splitlines() if "fe80:" not in line) for what, text in traces.items()}


def _assert_clean(machine: Machine, run: Weir, before: dict[str, str]) -> None:
    assert machine.traces() == before
    assert not run.processes()


def test_a_run_has_what_is_looked_for(machine: Machine) -> None:
    """Guards the tests below."""
    before = machine.traces()
    run = Weir(machine, WORK)
    assert run.line().startswith("you are ")
    during = machine.traces()
    assert {what for what in before if before[what] != during[what]} >= {"links", "rules", "mounts", "files"}
    assert len(run.processes()) >= 3, "the program, the sidecar and the command"
    run.process.terminate()
    run.end()
    _assert_clean(machine, run, before)


@pytest.mark.parametrize("status", [0, 7])
def test_after_a_normal_end(machine: Machine, status: int) -> None:
    before = machine.traces()
    run = Weir(machine, f"{ASK}; raise SystemExit({status})")
    code, said = run.end()
    assert (code, "you are " in said) == (status, True), said
    _assert_clean(machine, run, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal(machine: Machine, number: signal.Signals) -> None:
    before = machine.traces()
    run = Weir(machine, WORK)
    assert run.line().startswith("you are ")
    run.process.send_signal(number)
    code, _ = run.end()
    # Python's own end by SIGINT is by that signal, too.
    assert code == 128 + number
    _assert_clean(machine, run, before)


@pytest.mark.parametrize("remove", [_clean, _next_run])
def test_after_kill_9(machine: Machine, remove) -> None:
    before = machine.traces()
    run = Weir(machine, WORK)
    assert run.line().startswith("you are ")
    run.process.kill()
    run.end()
    assert machine.traces() != before
    said = remove(machine)
    assert f"pod {run.name}" in said, "it says what it removed"
    _assert_clean(machine, run, before)


def test_a_killed_run_leaves_no_command_that_goes_on(machine: Machine) -> None:
    """Before anybody cleans up: the command would go direct, or nowhere."""
    before = machine.traces()
    run = Weir(machine, WORK)
    assert run.line().startswith("you are ")
    run.process.kill()
    run.end()
    eventually(lambda: not [words for words in run.processes() if "socket" in words])
    _clean(machine)
    _assert_clean(machine, run, before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_at_any_moment_of_the_set_up(machine: Machine, number: signal.Signals, note: list[str]) -> None:
    before = machine.traces()
    started = time.monotonic()
    whole = Weir(machine, ASK)
    whole.end()
    took = time.monotonic() - started
    moments = [took * (share + random.random()) / KILLS for share in range(KILLS)]
    for moment in moments:
        run = Weir(machine, WORK)
        time.sleep(moment)
        run.stop(number)
        if number == signal.SIGKILL:
            _clean(machine)
        _assert_clean(machine, run, before)
    note.append(f"{number.name} at {KILLS} moments of a {took:.1f} s run: nothing left")


def test_clean_leaves_what_is_in_use(machine: Machine) -> None:
    before = machine.traces()
    run = Weir(machine, WORK)
    assert run.line().startswith("you are ")
    during = machine.traces()
    assert run.name not in _clean(machine)
    _next_run(machine)
    assert _lines(machine.traces()) == _lines(during)
    assert len(run.processes()) >= 3
    run.process.terminate()
    run.end()
    _assert_clean(machine, run, before)
