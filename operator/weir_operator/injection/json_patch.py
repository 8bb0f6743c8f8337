"""JSON Patch (RFC 6902): what a webhook answers with instead of the whole object."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType


class Operation(msgspec.Struct, frozen=True):
    """One operation; `path` is a JSON Pointer (RFC 6901). Encoded with msgspec.json, `remove` has no value."""

    op: Literal["add", "remove", "replace"]
    path: str
    value: Any | UnsetType = UNSET


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Operation]:
    """The operations that make `after` of `before`. A list whose length changed is replaced as a whole."""
    return list(_object(before, after, ""))


def _value(before: Any, after: Any, path: str) -> Iterator[Operation]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _object(before, after, path)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _value(old, new, f"{path}/{index}")
    elif type(before) is not type(after) or before != after:  # in Python 1 == True; in JSON it is not
        yield Operation("replace", path, after)


def _object(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> Iterator[Operation]:
    for key, old in before.items():
        if key in after:
            yield from _value(old, after[key], _below(path, key))
        else:
            yield Operation("remove", _below(path, key))
    for key, new in after.items():
        if key not in before:
            yield Operation("add", _below(path, key), new)


def _below(path: str, key: str) -> str:
    return f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
