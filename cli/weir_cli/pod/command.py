"""Starts the command in the pod, as its user, in the foreground of the terminal; and tells its end as a shell would."""

import os
import signal
import sys
from typing import NoReturn

import msgspec

from weir_cli.pod import syscalls, view
from weir_cli.pod.errors import SetupError
from weir_cli.pod.identity import User
from weir_cli.pod.view import View

# env(1): found and not runnable, not found. docker-run(1) and others: the program that starts it failed.
CANNOT_RUN, NOT_FOUND, SETUP_FAILED = 126, 127, 125

# What container runtimes leave to root: nothing of it changes rules, routes, mounts or other users' processes.
# linux/capability.h: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW,
# SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
CAPABILITIES = frozenset((0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))


class Launch(msgspec.Struct, frozen=True):
    """What to run, where, and as whom (None: as we are)."""

    argv: tuple[str, ...]
    environ: dict[str, str]
    user: User | None
    view: View
    unblocked: frozenset[signal.Signals]
    """The signal mask that we were started with, and the command will be."""


class CommandError(Exception):
    """The command did not start; `status` is what to exit with (125, 126 or 127)."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Terminal(msgspec.Struct, frozen=True):
    """The terminal whose foreground we were given, if any. SIGTTOU must be blocked (tcsetpgrp(3))."""

    descriptor: int | None

    def give(self, group: int) -> None:
        """Make `group` the foreground: keys and Ctrl-C are its own."""
        if self.descriptor is not None:
            os.tcsetpgrp(self.descriptor, group)

    def is_ours(self) -> bool:
        """Whether our own group is in the foreground now."""
        return self.descriptor is not None and os.tcgetpgrp(self.descriptor) == os.getpgrp()


def terminal() -> Terminal:
    """The terminal on stdin, when we are in its foreground."""
    try:
        ours = os.tcgetpgrp(sys.__stdin__.fileno() if sys.__stdin__ else 0) == os.getpgrp()
    except (OSError, ValueError):
        return Terminal(None)
    return Terminal(0 if ours else None)


def start(launch: Launch, tty: Terminal) -> int:
    """Start the command; returns its pid, which is its process group too. Raises `CommandError`."""
    complaint, told = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(launch, tty, told, parent)
    os.close(told)
    with open(complaint, "rb") as pipe:  # noqa: PTH123 - a descriptor
        text = pipe.read().decode(errors="replace")
    if text:
        os.waitpid(pid, 0)
        status, _, words = text.partition(" ")
        raise CommandError(int(status), words)
    return pid


def exit_status(wait_status: int) -> int:
    """The command's exit status as a shell tells it: 128 and the signal's number when one ended it."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def _become(launch: Launch, tty: Terminal, told: int, parent: int) -> NoReturn:
    """The child's life up to execve(2); what goes wrong is told through the pipe, which execve closes."""
    status, text = SETUP_FAILED, ""
    try:
        _prepare(launch, tty, parent)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, launch.unblocked)
        try:
            os.execvpe(launch.argv[0], launch.argv, launch.environ)  # noqa: S606 - no shell is the point
        except FileNotFoundError as error:
            status, text = NOT_FOUND, f"cannot run {launch.argv[0]!r}: {error.strerror}"
        except OSError as error:
            status, text = CANNOT_RUN, f"cannot run {launch.argv[0]!r}: {error.strerror}"
    except (OSError, SetupError) as error:
        text = f"cannot make the pod's view of this machine: {error}"
    finally:
        os.write(told, f"{status} {text or 'the set-up ended by itself'}".encode())
        os._exit(status)


def _prepare(launch: Launch, tty: Terminal, parent: int) -> None:
    os.setpgid(0, 0)
    tty.give(os.getpid())
    os.setns(os.open(launch.view.pod.netns_path, os.O_RDONLY | os.O_CLOEXEC), os.CLONE_NEWNET)
    view.enter(launch.view)
    user = launch.user
    if user:
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
    syscalls.limit_capabilities(CAPABILITIES)
    if user:
        os.setresuid(user.uid, user.uid, user.uid)
    # After the change of identity, which would undo it.
    syscalls.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        raise SetupError("weir run is gone")
