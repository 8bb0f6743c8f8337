"""Waits for the command, as a container's runtime does, and restarts the sidecar, as the kubelet does.

Everything is a signal: they stay blocked and are taken one by one, so nothing happens in between.
"""

import os
import signal
import time
from collections.abc import Callable

import msgspec

from weir_cli.pod.command import Terminal, exit_status
from weir_cli.pod.sidecar import Sidecar

FORWARDED = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2))
HANDLED = FORWARDED | {signal.SIGCHLD, signal.SIGHUP}
# The last two: a background process that touches the terminal would be stopped.
BLOCKED = HANDLED | {signal.SIGTTOU, signal.SIGTTIN}

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 1.0
_STEADY = 10.0
_IDLE = 3600.0
GRACE = 10.0
"""How long a command may take to end after SIGTERM, in seconds."""


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait before the next start of a sidecar that died: not at all at first, a second at most."""

    delay: float = 0.0

    def after(self, lived: float) -> "Backoff":
        """The wait after one more death. A sidecar that lived for a while has paid its debts."""
        if lived >= _STEADY:
            return Backoff(_FIRST_DELAY)
        return Backoff(min(max(2 * self.delay, _FIRST_DELAY), _LONGEST_DELAY))

    def now(self, lived: float) -> float:
        """The wait before this start."""
        return 0.0 if lived >= _STEADY else self.delay


class Supervisor:
    """One command and one sidecar. `reload` is called on SIGHUP, `say` with what the user should know."""

    def __init__(
        self,
        sidecar: Sidecar,
        terminal: Terminal,
        *,
        restart: bool,
        reload: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._sidecar = sidecar
        self._terminal = terminal
        self._restart = restart
        self._reload = reload
        self._say = say
        self._backoff = Backoff()
        self._sidecar_up = True
        self._start_at: float | None = None
        self._kill_at: float | None = None

    def wait(self, command: int) -> int:
        """Serve until the command (a pid that is its group's too) ends; returns its exit status."""
        while True:
            got = signal.sigtimedwait(HANDLED, self._time_left())
            if got is None:
                self._timers(command)
            elif got.si_signo == signal.SIGCHLD:
                status = self._reap(command)
                if status is not None:
                    return status
            elif got.si_signo == signal.SIGHUP:
                self._reload()
            else:
                self._forward(command, got.si_signo)

    def _time_left(self) -> float:
        due = [at for at in (self._start_at, self._kill_at) if at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else _IDLE

    def _timers(self, command: int) -> None:
        now = time.monotonic()
        if self._start_at is not None and now >= self._start_at:
            self._start_at = None
            self._sidecar.start()
            self._sidecar_up = True
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._say(f"the command did not end within {GRACE:.0f} s of SIGTERM; killing it")
            _signal_group(command, signal.SIGKILL)

    def _forward(self, command: int, number: int) -> None:
        _signal_group(command, number)
        if number == signal.SIGTERM and self._kill_at is None:
            # A stopped command takes the signal only when it goes on.
            _signal_group(command, signal.SIGCONT)
            self._kill_at = time.monotonic() + GRACE

    def _reap(self, command: int) -> int | None:
        """See to whoever ended or stopped: several children may share one SIGCHLD. Returns the command's status."""
        if self._sidecar_up and (code := self._sidecar.ended()) is not None:
            self._sidecar_died(code)
        pid, status = os.waitpid(command, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return None
        if os.WIFSTOPPED(status):
            self._stop_with(command)
            return None
        self._terminal.give(os.getpgrp())
        return exit_status(status)

    def _sidecar_died(self, code: int) -> None:
        self._sidecar_up = False
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        if not self._restart:
            self._say(f"the proxy {how} and is not restarted (--no-restart)")
            return
        lived = time.monotonic() - self._sidecar.started
        wait = self._backoff.now(lived)
        self._backoff = self._backoff.after(lived)
        self._start_at = time.monotonic() + wait
        self._say(f"the proxy {how}; starting it again" + (f" in {wait:.1f} s" if wait else ""))

    def _stop_with(self, command: int) -> None:
        """The command was stopped (Ctrl-Z): stop too, so that the shell notices; go on together."""
        if self._terminal.descriptor is None:
            return
        self._terminal.give(os.getpgrp())
        os.kill(os.getpid(), signal.SIGSTOP)
        if self._terminal.is_ours():
            self._terminal.give(command)
        _signal_group(command, signal.SIGCONT)


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
