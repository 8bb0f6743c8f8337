"""A copy of a collection that follows the API server: listed once, watched from there, listed again when it must be."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Never

import msgspec

from weir_operator.kube.client import Client

type Key = tuple[str | None, str]
"""Namespace (None: a cluster-scoped object) and name."""


class Change(StrEnum):
    """What happened to an object."""

    ADDED = "Added"
    MODIFIED = "Modified"
    DELETED = "Deleted"


type Subscriber[T] = Callable[[Change, Key, T | None, T | None], None]
"""Called with the change, the key, the old object (None when added) and the new one (None when deleted)."""


def plain(raw: msgspec.Raw) -> dict[str, Any]:
    """An object as JSON says it: the decoder for whoever has no type for it."""
    decoded: dict[str, Any] = msgspec.json.decode(raw)
    return decoded


class Reflector[T]:
    """Follows one collection. `objects` is true as of a moment ago, also while the API server is away.

    `path` is the collection's, such as /api/v1/pods. `decode` makes a T of an object's JSON; it may raise ValueError (as
    msgspec does), and then the object is told to `on_problem` and is not in `objects`.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        decode: Callable[[msgspec.Raw], T],
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        on_problem: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.objects: dict[Key, T] = {}

    def subscribe(self, subscriber: Subscriber[T]) -> None:
        """Call this at each change from now on; what is there already is told at once, as added."""
        raise NotImplementedError

    async def synced(self) -> None:
        """Wait until the collection was listed for the first time."""
        raise NotImplementedError

    @property
    def is_synced(self) -> bool:
        """Whether it was."""
        raise NotImplementedError

    async def run(self) -> Never:
        """Follow until cancelled. Never fails because of the API server; what a subscriber raises ends it."""
        raise NotImplementedError
