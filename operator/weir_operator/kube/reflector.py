"""A copy of a collection that follows the API server: listed once, watched from there, listed again when it must be.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from enum import StrEnum
from typing import Any, Never

import msgspec

from weir_operator.kube.client import JSON, Client
from weir_operator.kube.errors import ApiError, Reason, error_of

type Key = tuple[str | None, str]
"""Namespace (None: a cluster-scoped object) and name."""

_METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"


class Change(StrEnum):
    """What happened to an object."""

    ADDED = "Added"
    MODIFIED = "Modified"
    DELETED = "Deleted"


type Subscriber[T] = Callable[[Change, Key, T | None, T | None], None]
"""Called with the change, the key, the old object (None when added) and the new one (None when deleted)."""


class Pace(msgspec.Struct, frozen=True):
    """Times, in seconds. A watch ends by itself after a time within `watch`, so that servers share the load.

    After the first failure in a row the pause is at most twice `pause`, doubles with each, up to `longest`.
    """

    watch: tuple[float, float] = (240.0, 360.0)
    grace: float = 30.0
    """How long after that time an answer that goes on in silence is given up."""
    pause: float = 0.1
    longest: float = 8.0


PACE = Pace()


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str
    name: str = ""
    namespace: str | None = None


class _Object(msgspec.Struct, frozen=True):
    metadata: _Meta


class _Event(msgspec.Struct, frozen=True):
    """A metav1.WatchEvent."""

    type: str
    object: msgspec.Raw


def plain(raw: msgspec.Raw) -> dict[str, Any]:
    """An object as JSON says it: the decoder for whoever has no type for it."""
    decoded: dict[str, Any] = msgspec.json.decode(raw)
    return decoded


class Reflector[T]:
    """Follows one collection. `objects` is what was true a moment ago, or when the API server was last heard.

    `path` is the collection's, such as /api/v1/pods. `decode` makes a T of an object's JSON. If it raises, the object is
    told to `on_problem` and is not in `objects`; so are failing requests, each attempt anew.
    """

    def __init__(  # noqa: PLR0913 - what may be said of a collection, each by its name
        self,
        client: Client,
        path: str,
        decode: Callable[[msgspec.Raw], T],
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        on_problem: Callable[[str], None] = lambda _text: None,
        pace: Pace = PACE,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.objects: dict[Key, T] = {}
        self._client = client
        self._path = path
        self._decode = decode
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        self._selectors = {name: value for name, value in selectors.items() if value}
        self._metadata_only = metadata_only
        self._on_problem = on_problem
        self._pace = pace
        self._uniform = uniform
        self._subscribers: list[Subscriber[T]] = []
        self._versions: dict[Key, str] = {}
        self._version: str | None = None
        """What the next watch begins after; None: list first."""
        self._heard = 0
        """Lines of watches that were understood."""
        self._synced = asyncio.Event()

    def subscribe(self, subscriber: Subscriber[T]) -> None:
        """Call this at each change from now on; what is there already is told at once, as added."""
        self._subscribers.append(subscriber)
        for key, new in list(self.objects.items()):
            subscriber(Change.ADDED, key, None, new)

    async def synced(self) -> None:
        """Wait until the collection was listed for the first time."""
        await self._synced.wait()

    @property
    def is_synced(self) -> bool:
        """Whether it was."""
        return self._synced.is_set()

    async def run(self) -> Never:
        """Follow until cancelled. Never ends because of the API server; what a subscriber raises ends it."""
        failures = 0
        while True:
            heard, asked_for = self._heard, 0.0
            try:
                if self._version is None:
                    await self._list()
                await self._watch()
            except ApiError as error:
                if not error.passing:
                    self._version = None
                if not error.gone:  # which is no failure: versions grow old
                    self._on_problem(f"{self._path}: {error}")
                asked_for = error.retry_after or 0.0
            failures = 0 if self._heard > heard else failures + 1
            await asyncio.sleep(max(self._pause(failures), asked_for))

    def _pause(self, failures: int) -> float:
        if failures == 0:
            return 0.0
        most = min(self._pace.longest, self._pace.pause * 2 ** min(failures, 16))
        return self._uniform(most / 2, most)

    async def _list(self) -> None:
        version = ""
        seen: set[Key] = set()
        accept = _METADATA.format("List") if self._metadata_only else JSON
        async with aclosing(self._client.pages(self._path, self._selectors, accept)) as pages:
            async for page in pages:
                version = page.metadata.resource_version
                seen.update(self._put(item) for item in page.items or ())
        for key in self._versions.keys() - seen:
            self._remove(key)
        self._version = version
        self._synced.set()

    async def _watch(self) -> None:
        assert self._version is not None
        seconds = int(self._uniform(*self._pace.watch))
        params = {
            **self._selectors,
            "watch": "true",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        accept = _METADATA.format("") if self._metadata_only else JSON
        silence = seconds + self._pace.grace
        async with aclosing(self._client.lines(self._path, params, silence=silence, accept=accept)) as lines:
            async for line in lines:
                self._take(line)
                self._heard += 1

    def _take(self, line: bytes) -> None:
        """One event."""
        event = _read(line, _Event)
        if event.type == "ERROR":
            self._version = None
            raise error_of(0, event.object)
        metadata = _read(event.object, _Object).metadata
        if event.type == "DELETED":
            self._remove(_key(metadata))
        elif event.type != "BOOKMARK":
            self._put(event.object)
        self._version = metadata.resource_version

    def _put(self, raw: msgspec.Raw) -> Key:
        """An object as it is now. One that was seen in this version, or looks to T as before, is no change."""
        metadata = _read(raw, _Object).metadata
        key = _key(metadata)
        if self._versions.get(key) == metadata.resource_version:
            return key
        try:
            new = self._decode(raw)
        except Exception as error:  # noqa: BLE001 - whatever an object does to its reader, the others are still followed
            self._on_problem(f"{self._path}: {'/'.join(filter(None, key))}: cannot be read: {error!r}")
            self._remove(key)
        else:
            old = self.objects.get(key)
            if old is None:
                self._tell(Change.ADDED, key, None, new)
            elif old != new:
                self._tell(Change.MODIFIED, key, old, new)
        self._versions[key] = metadata.resource_version
        return key

    def _remove(self, key: Key) -> None:
        self._versions.pop(key, None)
        old = self.objects.get(key)
        if old is not None:
            self._tell(Change.DELETED, key, old, None)

    def _tell(self, change: Change, key: Key, old: T | None, new: T | None) -> None:
        if new is None:
            del self.objects[key]
        else:
            self.objects[key] = new
        for subscriber in self._subscribers:
            subscriber(change, key, old, new)


def _read[M](data: bytes | msgspec.Raw, kind: type[M]) -> M:
    """What every object and event has. Something else may stand for any change: then all is listed again."""
    try:
        return msgspec.json.decode(data, type=kind)
    except ValueError as error:  # msgspec's, and UnicodeError
        raise ApiError(0, Reason.UNKNOWN, f"neither an object nor an event: {error}") from error


def _key(metadata: _Meta) -> Key:
    return (metadata.namespace, metadata.name)
