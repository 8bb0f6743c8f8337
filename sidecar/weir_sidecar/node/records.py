"""What the agent notes of the pods it captured: files on the node's tmpfs, which end with the node's namespaces.

One file a sandbox, named by its container ID. A request's child writes it, and every later look reads it again. Beside it, the
key that the pod's sidecar has claimed.
"""

import os
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from weir_sidecar.contract.config import SidecarConfig

_SUFFIX = ".json"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A pod that is captured, and with what config: the one whose rules are loaded."""

    container_id: str
    netns: str
    """The path that the runtime gave."""
    namespace: str
    name: str
    uid: str
    config: SidecarConfig


class Records:
    """The directory of records; only root may write to it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103 - as in the rest of the sidecar

    def write(self, record: Record) -> None:
        """Whole or not at all, also when the agent is killed. Raises OSError."""
        part = f"{self._directory}/.{record.container_id}.{os.getpid()}"
        with open(part, "wb") as file:  # noqa: PTH123
            file.write(msgspec.json.encode(record))
        os.rename(part, self._path(record.container_id))  # noqa: PTH104

    def read(self, container_id: str) -> Record | None:
        """None where there is none, or none that can be read: then the pod has to be looked at anew."""
        try:
            with open(self._path(container_id), "rb") as file:  # noqa: PTH123
                return msgspec.json.decode(file.read(), type=Record)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeError):
            return None

    def remove(self, container_id: str) -> None:
        """With its key. It may be gone already."""
        for path in (self._path(container_id), self._key_path(container_id)):
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108

    def claim(self, container_id: str, key: bytes) -> None:
        """Note the key of the pod's hand-over: the first one, and no other. Raises `FileExistsError`."""
        part = f"{self._directory}/.{container_id}.{os.getpid()}.key"
        with open(part, "wb") as file:  # noqa: PTH123
            file.write(key)
        try:
            os.link(part, self._key_path(container_id))
        finally:
            os.unlink(part)  # noqa: PTH108

    def key(self, container_id: str) -> bytes | None:
        """The key that was claimed; None: none was."""
        try:
            with open(self._key_path(container_id), "rb") as file:  # noqa: PTH123
                return file.read()
        except FileNotFoundError:
            return None

    def all(self) -> Iterator[str]:
        """The container IDs; what an agent that was killed left half written is removed."""
        for name in sorted(os.listdir(self._directory)):  # noqa: PTH208
            if name.startswith("."):
                with suppress(FileNotFoundError):
                    os.unlink(f"{self._directory}/{name}")  # noqa: PTH108
            elif name.endswith(_SUFFIX):
                yield name.removesuffix(_SUFFIX)

    def _path(self, container_id: str) -> str:
        return f"{self._directory}/{container_id}{_SUFFIX}"

    def _key_path(self, container_id: str) -> str:
        return f"{self._directory}/{container_id}.key"
