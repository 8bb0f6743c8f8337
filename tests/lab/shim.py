"""The CNI plugin, compiled for a test, and an agent that answers it with given bytes."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

SOURCE = Path(__file__).parents[2] / "cni" / "shim.c"
FLAGS = ("-static", "-Os", "-Wall", "-Wextra", "-Werror", "-fstack-protector-strong")
SANITIZED = ("-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
COMPILER = shutil.which("cc")


class Shim:
    """The plugin, talking to `agent`, which is a path. It waits so many seconds for an answer, and for one that is away."""

    def __init__(self, directory: Path, flags: tuple[str, ...] = FLAGS, seconds: int = 60, away: int = 0) -> None:
        assert COMPILER is not None
        self.agent = directory / "cni.sock"
        self.path = directory / "weir-cni"
        defines = (f'-DWEIR_SOCKET="{self.agent}"', f"-DWEIR_SECONDS={seconds}", f"-DWEIR_AWAY_SECONDS={away}")
        subprocess.run([COMPILER, *flags, *defines, "-o", str(self.path), str(SOURCE)], check=True, timeout=60)

    def __call__(self, stdin: bytes, environment: Mapping[str, str | bytes]) -> subprocess.CompletedProcess[bytes]:
        env: dict[Any, Any] = {"PATH": os.environ["PATH"], **environment}
        return subprocess.run([self.path], input=stdin, env=env, capture_output=True, timeout=60, check=False)

    def start(self, stdin: bytes, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """As a runtime does that does not wait."""
        running = subprocess.Popen([self.path], env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert running.stdin
        with running.stdin:
            running.stdin.write(stdin)
        running.stdin = None
        return running


class FakeAgent:
    """Answers each connection with these bytes when it has read everything, and keeps what it read."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.asked: list[bytes] = []
        self.answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._path = path
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._path.unlink()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                parts = []
                while data := connection.recv(65536):
                    parts.append(data)
                self.asked.append(b"".join(parts))
                try:
                    connection.sendall(self.answer)
                except OSError:
                    continue
