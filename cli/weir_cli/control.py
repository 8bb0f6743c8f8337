"""Talks to a sidecar that runs, through the Unix socket in its state directory."""

import contextlib
import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from weir_cli.pod import names
from weir_cli.pod.errors import SetupError
from weir_sidecar.edge.admin import CONTROL_SOCKET

TIMEOUT = 5.0
"""Seconds that a sidecar has for an answer; one that is stopped gives none."""


class ControlError(Exception):
    """What was asked could not be had; the text says why and what to do."""


def state_directory(state: str | None, name: str | None) -> Path:
    """The sidecar's own directory for `--state DIR`, or for `--name NAME` of a run without one. `ControlError`."""
    if state is not None:
        return Path(state) / "sidecar"
    assert name is not None  # the parser requires one of them
    try:
        return names.pod(name).run
    except SetupError as error:
        raise ControlError(str(error)) from error


class Control:
    """A sidecar's state directory, held open; use it in a `with`. Raises `ControlError`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._followed: list[socket.socket] = []
        try:
            self.descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ControlError(f"{directory}: there is no such directory; `weir run --state DIR` makes one") from None
        except OSError as error:
            raise ControlError(_explained(directory, error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._followed:
            # Who reads its lines may be in another thread, waiting for the next.
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        os.close(self.descriptor)

    def runs(self) -> bool:
        """Whether a sidecar serves this directory."""
        client = self._connected()
        if client is not None:
            client.close()
        return client is not None

    def get(self, path: str) -> bytes:
        """The content of a page."""
        with self._asked("GET", path) as response:
            return self._read(response)

    def post(self, path: str, body: object) -> None:
        """Ask for a change."""
        with self._asked("POST", path, msgspec.json.encode(body)) as response:
            self._read(response)

    def lines(self, path: str) -> Iterator[bytes]:
        """Ask for a page, and give its lines as they come; while the sidecar runs, if the page has no end."""
        return self._lines(self._asked("GET", path, timeout=None))

    def _lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        with response:
            try:
                yield from response
            except OSError as error:
                raise ControlError(f"the sidecar of {self.directory} went away: {error.strerror or error}") from error

    def _asked(
        self, method: str, path: str, body: bytes | None = None, timeout: float | None = TIMEOUT
    ) -> http.client.HTTPResponse:
        client = self._connected()
        if client is None:
            raise ControlError(
                f"{self.directory}: no sidecar serves there; "
                "a run with --state DIR is reached by --state DIR, one without by its --name"
            )
        connection = http.client.HTTPConnection("localhost")
        connection.sock = client
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise ControlError(_refusal(self._read(response)))
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ControlError(f"the sidecar of {self.directory} does not answer: {error}") from error
        client.settimeout(timeout)
        if timeout is None:
            self._followed.append(client)
        return response

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(f"the sidecar of {self.directory} does not answer: {error}") from error

    def _connected(self) -> socket.socket | None:
        """A connection; None when no sidecar runs. By descriptor: a socket's path has at most 107 bytes (unix(7))."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(TIMEOUT)
        try:
            client.connect(f"/proc/self/fd/{self.descriptor}/{CONTROL_SOCKET}")
        except (FileNotFoundError, ConnectionRefusedError):
            client.close()
            return None
        except OSError as error:
            client.close()
            raise ControlError(_explained(self.directory / CONTROL_SOCKET, error)) from error
        return client


def _explained(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"{path}: permission denied; it belongs to the proxy: run this as root"
    return f"{path}: {error.strerror or error}"


def _refusal(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=dict[str, str])["error"]
    except (msgspec.MsgspecError, KeyError):
        return f"the sidecar refused without a reason: {body[:200]!r}"
