"""A `weir run` that goes on while a test does things to it and to its proxy."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from lab.lab import WEIR, Lab, LabError
from lab.policy import Policy

ADMIN_PORT = 15802
PATIENCE = 30.0
_LISTEN = "0A"


def wait_for(what: str, condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Wait until `condition` gives something true, and return it."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise LabError(f"waited {patience:.0f} s in vain: {what}")
        time.sleep(0.005)
    return found


class RunningWeir:
    """From entry to exit one `weir run` on the lab's machine; its command ends when its standard input does."""

    def __init__(
        self, lab: Lab, name: str, argv: list[str], policy: Policy, *options: str, prefix: list[str] | None = None
    ) -> None:
        self.lab = lab
        self.name = name
        self.directory = lab.directory / name
        self.directory.mkdir()
        self.state = self.directory / "state"
        self.record_file = self.directory / "records.jsonl"
        self._policy_file = self.directory / "policy.yaml"
        self.set_policy(policy)
        head = [str(WEIR), "run", "-f", str(self._policy_file), "--record", str(self.record_file)]
        more = ["--state", str(self.state), "--name", name, *options]
        self._argv = [*(lab.network.inside([]) if prefix is None else prefix), *head, *more, "--", *argv]
        self._log = self.directory / "weir.log"

    def set_policy(self, policy: Policy) -> None:
        """Write the policy file; a running `weir run` reads it again on SIGHUP."""
        self._policy_file.write_text(policy.to_yaml())

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env=self.lab._environment(),
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()

    @property
    def log(self) -> str:
        """What `weir run` and the command said on standard error."""
        return self._log.read_text()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The flow records."""
        return [one for one in self._lines() if "record" not in one]

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The request records."""
        return [one for one in self._lines() if one.get("record") == "request"]

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.record_file.read_text().splitlines()]

    def line(self) -> str:
        """The next line that the command writes: most often that it is ready."""
        assert self.process.stdout
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline().decode().strip() if readable else ""
        if not line:
            raise LabError(f"the command said nothing; weir run: {self.log}")
        return line

    def say(self, line: str) -> None:
        """Write a line to the command's standard input."""
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send a signal to `weir run`, which passes it on, or heeds it."""
        self.process.send_signal(number)

    def proxy(self) -> int:
        """The proxy's pid."""
        return int((self.state / "proxy.pid").read_text())

    def serving(self) -> bool:
        """Whether the proxy in `proxy.pid` serves: its admin endpoint is opened last of all."""
        try:
            lines = Path(f"/proc/{self.proxy()}/net/tcp").read_text().splitlines()
        except OSError:
            return False
        sockets = [line.split() for line in lines[1:]]
        return any(s[1].endswith(f":{ADMIN_PORT:04X}") and s[3] == _LISTEN for s in sockets)

    def wait_restarted(self, old: int) -> None:
        """Wait until another proxy than `old` serves."""
        wait_for("another proxy serves", lambda: self.proxy() != old and self.serving())

    def end_proxy(self, number: int) -> tuple[float, float]:
        """End the proxy by a signal; returns when it was sent, and when the process was gone."""
        pidfd = os.pidfd_open(self.proxy())
        try:
            sent = time.monotonic()
            signal.pidfd_send_signal(pidfd, number)
            if not select.select([pidfd], [], [], PATIENCE)[0]:
                raise LabError("the proxy does not end")
            return sent, time.monotonic()
        finally:
            os.close(pidfd)

    def in_pod(self, argv: list[str], **options: Any) -> str:
        """What a command prints that runs, as root, in the pod's network namespace and nothing else of the pod."""
        namespace = ["nsenter", f"--net=/proc/{self.proxy()}/ns/net"]
        return subprocess.run([*namespace, *argv], stdout=subprocess.PIPE, text=True, check=True, **options).stdout
