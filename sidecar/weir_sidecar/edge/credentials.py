"""Secrets that rules add to requests: read from files that only the sidecar may read, and told to nobody."""

import os
import re

import msgspec

MAX_SECRET = 16384
"""Bytes."""

_VALUE = re.compile(rb"[\t -~\x80-\xff]+")


class CredentialUnreadableError(Exception):
    """The secret cannot be had; the text names the file and the cause, never what is in it."""


class _Held(msgspec.Struct, frozen=True):
    version: tuple[int, int, int]
    secret: bytes


class Credentials:
    """The secrets by file; a file that is another one now (a Secret's volume swaps links) is read again."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    def secret(self, path: str) -> bytes:
        """The secret in `path`, without the end of its line. Raises `CredentialUnreadableError`."""
        try:
            found = os.stat(path)  # noqa: PTH116 - pathlib stays out of the sidecar
            version = (found.st_ino, found.st_mtime_ns, found.st_size)
            held = self._held.get(path)
            if held is None or held.version != version:
                with open(path, "rb") as file:  # noqa: PTH123 - as above
                    held = self._held[path] = _Held(version, file.read(MAX_SECRET + 1).rstrip(b"\r\n"))
        except OSError as error:
            raise CredentialUnreadableError(f"credential {path}: {error.strerror}") from error
        if len(held.secret) > MAX_SECRET or not _VALUE.fullmatch(held.secret):
            raise CredentialUnreadableError(f"credential {path}: it is not one line of at most {MAX_SECRET} bytes")
        return held.secret
