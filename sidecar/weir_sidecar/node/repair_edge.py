"""What repair does on the node: when it looks, what it remembers, and how it goes into pods' namespaces and comes back."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.edge.rules_answer import has_rules
from weir_sidecar.netfilter.features import Features
from weir_sidecar.netsetup import capture
from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.node import namespaces, plugin, repair
from weir_sidecar.node.cni import Request
from weir_sidecar.node.records import Record, Records
from weir_sidecar.node.repair_cache import DIRECTORY

SWEEP_SECONDS = 10.0
"""How often all captured pods are looked at: some hundred microseconds each."""


class Schedule:
    """When to look, to be asked each second: at the start, when sandboxes come or go, and now and then.

    `clock` counts seconds and never goes back.
    """

    def __init__(self, cache: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = f"{cache}/{DIRECTORY}"
        self._clock = clock
        self._seen = -1
        self._sweep_at = 0.0

    def due(self) -> tuple[bool, bool]:
        """Whether to look for pods that slipped, and for broken ones."""
        try:
            changed = os.stat(self._directory).st_mtime_ns  # noqa: PTH116 - as in the rest of the sidecar
        except FileNotFoundError:
            changed = -1  # no pod has been made yet
        sweep = self._clock() >= self._sweep_at
        if sweep:
            self._sweep_at = self._clock() + SWEEP_SECONDS
        slip, self._seen = changed != self._seen or sweep, changed
        return slip, sweep


class PassedFiles:
    """`repair.Passed`, as files: an empty one for good, one that says why for now. An agent that is restarted goes on."""

    def __init__(self, directory: str, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock
        os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103

    def is_due(self, container_id: str) -> bool:
        """See `Passed`."""
        try:
            found = os.stat(self._path(container_id))  # noqa: PTH116
        except FileNotFoundError:
            return True
        return found.st_size > 0 and self._clock() - found.st_mtime >= repair.RETRY_SECONDS

    def leave(self, container_id: str) -> None:
        """See `Passed`."""
        self._write(container_id, "")

    def failed(self, container_id: str, why: str) -> bool:
        """See `Passed`."""
        before = self._read(container_id)
        self._write(container_id, why)
        return before != why

    def keep(self, container_ids: Iterable[str]) -> None:
        """See `Passed`."""
        for ended in set(os.listdir(self._directory)) - set(container_ids):  # noqa: PTH208
            with suppress(FileNotFoundError):
                os.unlink(self._path(ended))  # noqa: PTH108

    def _read(self, container_id: str) -> str | None:
        try:
            with open(self._path(container_id), encoding="utf-8") as file:  # noqa: PTH123
                return file.read()
        except FileNotFoundError:
            return None

    def _write(self, container_id: str, text: str) -> None:
        with open(self._path(container_id), "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)

    def _path(self, container_id: str) -> str:
        return f"{self._directory}/{container_id}"


def edge_of(
    cache: str, features: Features, records: Records, asked: plugin.Edge, say: Callable[[str], None]
) -> repair.Edge:
    """The real one. `asked` is that of the plugin's own requests."""

    def add(request: Request) -> None:
        with _coming_back():
            plugin.answer(request, records, asked)

    def load(record: Record) -> None:
        with _visiting(record.netns):
            capture.apply(record.config, features)
            if missing := capture.check(record.config, features):
                raise CaptureError("repair", "; ".join(missing), "something else changes the pod's rules")

    return repair.Edge(
        notes=lambda: _notes(f"{cache}/{DIRECTORY}"),
        is_there=_is_there,
        add=add,
        is_fine=lambda record: _is_fine(record, features),
        load=load,
        forget=asked.forget,
        say=say,
    )


def _notes(directory: str) -> Iterator[bytes]:
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208
    except FileNotFoundError:
        return
    for name in names:
        with suppress(FileNotFoundError), open(f"{directory}/{name}", "rb") as file:  # noqa: PTH123
            yield file.read()


def _is_there(path: str) -> bool:
    try:
        os.close(namespaces.open_netns(path))
    except FileNotFoundError:
        return False
    return True


def _is_fine(record: Record, features: Features) -> bool:
    with _visiting(record.netns) as netns:
        if namespaces.is_pods_own(netns):
            # Its users are others than ours, so nobody here is the one whom the rules answer.
            return not capture.check(record.config, features)
        return _answers(record.config) and not capture.check_routes(record.config, features)


def _answers(config: SidecarConfig) -> bool:
    namespaces.create_as(config.identity.uid)
    try:
        return has_rules(config)
    finally:
        namespaces.create_as(0)


@contextmanager
def _visiting(path: str) -> Iterator[int]:
    netns = namespaces.open_netns(path)
    try:
        with _coming_back():
            namespaces.enter_network(netns)
            yield netns
    finally:
        os.close(netns)


@contextmanager
def _coming_back() -> Iterator[None]:
    """Out of the pod's namespace again. Nothing but network namespaces may have been entered."""
    own = namespaces.current_network()
    try:
        yield
    finally:
        os.setns(own, os.CLONE_NEWNET)
        os.close(own)
