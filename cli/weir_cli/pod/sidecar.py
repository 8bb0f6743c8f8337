"""The sidecar's process: started in the pod's network namespace, told from outside by signals, stopped with grace."""

import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from weir_cli.pod import namespace
from weir_cli.pod.errors import SetupError
from weir_cli.pod.names import Pod

_READY_TIMEOUT = 30.0
_STOP_TIMEOUT = 5.0
_POLL = 0.1
_LOG_LINES = 5
# Nothing of the caller's environment: SSL_CERT_FILE or PYTHONPATH would change what the sidecar trusts and runs.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class SidecarCommand(msgspec.Struct, frozen=True):
    """How to start the sidecar: the program, its directories, and where its pid is to be found."""

    program: tuple[str, ...]
    pod: Pod
    state: Path
    record: Path | None
    pid_files: tuple[Path, ...]

    def argv(self, ready: int | None) -> list[str]:
        """The command line; `ready` is a descriptor that gets a byte when the sidecar serves."""
        options = ["--run-dir", str(self.pod.run), "--state-dir", str(self.state)]
        options += ["--record", str(self.record)] if self.record else []
        return [*self.program, *options, *(["--ready-fd", str(ready)] if ready is not None else [])]


class Sidecar:
    """A running sidecar, and the means to start the next one."""

    def __init__(self, command: SidecarCommand, interrupted: Callable[[], bool]) -> None:
        self._command = command
        self._interrupted = interrupted
        self._ready: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = os.pipe2(os.O_CLOEXEC)
        self.started = 0.0

    def start(self, *, first: bool = False) -> None:
        """Start the process. The first start can be waited for with `wait_ready`."""
        readable, writable = os.pipe2(os.O_CLOEXEC) if first else (None, None)
        self._process = self._spawn(writable)
        self._ready = readable
        if writable is not None:
            os.close(writable)
        self.started = time.monotonic()
        for path in self._command.pid_files:
            replace_file(path, f"{self._process.pid}\n".encode())

    def wait_ready(self) -> None:
        """Wait until the sidecar serves. Raises `SetupError` when it ends first, or takes too long."""
        assert self._ready is not None
        deadline = time.monotonic() + _READY_TIMEOUT
        while not select.select([self._ready], [], [], _POLL)[0]:
            if self._interrupted():
                raise SetupError("interrupted before the command was started")
            if time.monotonic() > deadline:
                raise SetupError(f"the sidecar was not ready within {_READY_TIMEOUT:.0f} s{self.last_words()}")
        told = os.read(self._ready, 1)
        os.close(self._ready)
        if not told:
            raise SetupError(f"the sidecar ended before it was ready{self.last_words()}")

    def ended(self) -> int | None:
        """The exit code, negative for a signal, when the process has ended; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def reload(self) -> None:
        """Make it read its config again."""
        if self._process and self.ended() is None:
            self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Ask it to end, which writes the last records; insist after a while."""
        if self._process is None or self.ended() is not None:
            return
        self._process.terminate()
        # A stopped process takes the request only when it goes on.
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """The end of what it wrote to its log, to be put after a message."""
        text = self._log().read_text(errors="replace") if self._log().exists() else ""
        lines = text.strip().splitlines()[-_LOG_LINES:]
        return "; it said:\n  " + "\n  ".join(lines) if lines else " and said nothing"

    def _spawn(self, ready: int | None) -> subprocess.Popen[bytes]:
        """Its own session keeps the terminal's Ctrl-C from it; no descriptor of the caller reaches it."""
        log = os.open(self._log(), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with namespace.entered(self._command.pod.netns_path), open(log, "wb") as output:  # noqa: PTH123 - a descriptor
            return subprocess.Popen(
                self._command.argv(ready),
                stdin=self._lifeline[0],
                stdout=output,
                stderr=output,
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
                pass_fds=() if ready is None else (ready,),
                preexec_fn=_enter_life,  # noqa: PLW1509 - this program has one thread
            )

    def _log(self) -> Path:
        return self._command.pod.run / "sidecar.log"


def _enter_life() -> None:
    """Unblock signals, and let the kernel end this process when the other end of stdin closes: weir run is gone.

    PR_SET_PDEATHSIG would not outlive the sidecar's change of identity. A pipe with O_ASYNC does: its closing sends
    SIGIO to the owner (fcntl(2)), and SIGIO ends who does not expect it.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)


def replace_file(path: Path, data: bytes, owner: tuple[int, int] | None = None, mode: int = 0o644) -> None:
    """Write a file in one step, so that a reader sees the old text or the new."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
        if owner:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        file.write(data)
    part.replace(path)


def program(interpreter: str) -> Sequence[str]:
    """The real sidecar; isolated, so that nothing in the working directory or the environment is imported."""
    return (interpreter, "-I", "-m", "weir_sidecar")
