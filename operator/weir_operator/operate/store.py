"""The policies and TrustExceptions that there are, put together from listings, watch events and answers to writes.

These come in any order. Of two states of one object the later counts; what was deleted and told late goes with the next
listing, or when a write finds it gone.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from weir_operator.cluster.policies import PolicyKey
from weir_operator.operate.world import EXCEPTION, Object, key_of, version_of


class Store:
    """Objects by their key. `objects` is never changed but replaced by its owner's methods; `on_change` is told after."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._objects: dict[PolicyKey, Object] = {}
        self._on_change = on_change

    @property
    def objects(self) -> Mapping[PolicyKey, Object]:
        """All of them, as of now."""
        return self._objects

    def put(self, obj: Object) -> None:
        """An object was seen in this state."""
        key = key_of(obj)
        held = self._objects.get(key)
        if held is None or version_of(held) < version_of(obj):
            self._objects[key] = _slim(obj)
            self._on_change()

    def drop(self, key: PolicyKey, uid: str | None = None) -> None:
        """An object is gone; with `uid`, only that one, and not another of the same name that came after."""
        held = self._objects.get(key)
        if held is not None and uid in (None, held["metadata"]["uid"]):
            del self._objects[key]
            self._on_change()

    def seen(self, kind: str | None, obj: Object) -> None:
        """A watch event: ADDED, MODIFIED, DELETED, or None for what a listing has."""
        if kind == "DELETED":
            self.drop(key_of(obj), obj["metadata"]["uid"])
        else:
            self.put(obj)

    def relist(self, before: Mapping[PolicyKey, Object], listed: Iterable[Object]) -> None:
        """A listing of everything, asked for when the store held `before`, has come."""
        found = {key_of(obj): obj for obj in listed}
        for key, obj in found.items():
            if key in self._objects or key not in before:  # else it was deleted meanwhile
                self.put(obj)
        for key, held in before.items():
            if key not in found and self._objects.get(key) is held:
                self.drop(key)


def _slim(obj: Object) -> Object:
    """An object without what is never looked at, where there are many."""
    if obj["kind"] != EXCEPTION:
        return obj
    metadata: dict[str, Any] = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": metadata}
