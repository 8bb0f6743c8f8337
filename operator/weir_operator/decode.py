"""YAML nodes to models: reads the models' types, and collects everything that is wrong instead of stopping at once."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from weir_operator import grammar
from weir_operator.nodes import Mapping, Node, Scalar, Sequence
from weir_operator.problems import Position, Problem

MAX_PROBLEMS = 100
"""Told of one file; who has made more has given the wrong file."""


class _EnoughError(Exception):
    """There are `MAX_PROBLEMS`."""


_type_info = cache(inspect.type_info)


@cache
def _values(words: type[StrEnum]) -> list[str]:
    return [word.value for word in words]


class _Bad:
    """Stands for a value that could not be read; its problem is noted."""


_BAD = _Bad()


class Decoder:
    """Reads one document. `problems` is what was wrong; `positions` where each field stands, by its path."""

    def __init__(self, file: str) -> None:
        self.problems: list[Problem] = []
        self.positions: dict[str, Position | None] = {}
        self._file = file

    def read[M: msgspec.Struct](self, node: Node, model: type[M]) -> M | None:
        """The document as a `model`, or None, and then there is at least one problem."""
        try:
            value = self._value(node, _type_info(model), "")
        except _EnoughError:
            return None
        return value if isinstance(value, model) else None

    def note(self, position: Position | None, path: str, text: str) -> _Bad:
        """Add a problem."""
        self.problems.append(Problem(self._file, position, path, text))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _EnoughError
        return _BAD

    def _value(self, node: Node, kind: inspect.Type, path: str) -> Any:
        self.positions.setdefault(path, node.position)
        if isinstance(kind, inspect.UnionType):  # only `X | None` in our models
            kind = next(part for part in kind.types if not isinstance(part, inspect.NoneType))
        if isinstance(kind, inspect.Metadata):
            return self._grammar(node, str((kind.extra or {})["grammar"]), path)
        return _READERS[type(kind)](self, node, kind, path)

    def _struct(self, node: Node, kind: inspect.StructType, path: str) -> Any:
        if not isinstance(node, Mapping):
            return self._unlike(node, path, f"an object with {_listed(f.encode_name for f in kind.fields)}")
        fields = {field.encode_name: field for field in kind.fields}
        values: dict[str, Any] = {}
        for entry in node.entries:
            below = _join(path, entry.key)
            field = fields.get(entry.key)
            if field is None:
                self._unknown(entry.position, below, entry.key, list(fields))
            else:
                values[field.name] = self._value(entry.value, field.type, below)
        for field in kind.fields:
            if field.required and field.name not in values:
                values[field.name] = self.note(node.position, _join(path, field.encode_name), "missing; it is required")
        return _BAD if any(value is _BAD for value in values.values()) else kind.cls(**values)

    def _list(self, node: Node, kind: inspect.VarTupleType, path: str) -> Any:
        if not isinstance(node, Sequence):
            return self._unlike(node, path, "a list")
        if kind.min_length and not node.items:
            return self.note(
                node.position, path, "found an empty list; allowed: at least one entry, or leave the field out"
            )
        values = [self._value(item, kind.item_type, f"{path}[{number}]") for number, item in enumerate(node.items)]
        return _BAD if any(value is _BAD for value in values) else tuple(values)

    def _object(self, node: Node, _kind: inspect.DictType, path: str) -> Any:
        return _plain(node) if isinstance(node, Mapping) else self._unlike(node, path, "an object")

    def _string(self, node: Node, _kind: inspect.StrType, path: str) -> Any:
        return self._text(node, path, "text")

    def _boolean(self, node: Node, _kind: inspect.BoolType, path: str) -> Any:
        value = node.value if isinstance(node, Scalar) else None
        return value if isinstance(value, bool) else self._unlike(node, path, "true or false")

    def _integer(self, node: Node, kind: inspect.IntType, path: str) -> Any:
        value = node.value if isinstance(node, Scalar) else None
        least, most = kind.ge, kind.le
        assert least is not None
        assert most is not None
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        return self._unlike(node, path, f"a whole number from {least} to {most}")

    def _grammar(self, node: Node, name: str, path: str) -> Any:
        try:
            if name in grammar.TEXTS:
                text = self._text(node, path, name)
                return grammar.TEXTS[name](text) if isinstance(text, str) else _BAD
            value = node.value if isinstance(node, Scalar) and not node.ambiguous else None
            # A value of another type gets the grammar's own account of what is allowed.
            return grammar.NUMBERS[name]("" if value is None or isinstance(value, bool) else value)
        except grammar.UnreadableError as error:
            return self._unlike(node, path, str(error))

    def _text(self, node: Node, path: str, what: str) -> str | _Bad:
        if not isinstance(node, Scalar) or node.value is None:
            return self._unlike(node, path, f"a {what}" if what != "text" else what)
        if node.ambiguous or not isinstance(node.value, str):
            found = "a boolean, a number or a date" if node.ambiguous else _called(node)
            return self.note(
                node.position,
                path,
                f"found {node.text}, which YAML may read as {found}; "
                f'if the text is meant, write it in quotes: "{node.text}"',
            )
        return node.value

    def _word(self, node: Node, kind: inspect.EnumType, path: str) -> Any:
        words = kind.cls
        assert issubclass(words, StrEnum)
        allowed = _values(words)
        text = node.text if isinstance(node, Scalar) else None
        if text in allowed:
            is_text = isinstance(node, Scalar) and isinstance(node.value, str)
            return words(text) if is_text else self._text(node, path, "text")
        hint = _nearest(text or "", allowed)
        return self._unlike(node, path, (f"{hint}; allowed: " if hint else "") + ", ".join(allowed), joined=bool(hint))

    def _unknown(self, position: Position | None, path: str, key: str, allowed: list[str]) -> None:
        hint = _nearest(key, allowed)
        self.note(position, path, f"unknown field{'; ' + hint if hint else ''}; allowed: {', '.join(allowed)}")

    def _unlike(self, node: Node, path: str, allowed: str, *, joined: bool = False) -> _Bad:
        return self.note(node.position, path, f"found {_called(node)}; {'' if joined else 'allowed: '}{allowed}")


_READERS: dict[type[inspect.Type], Callable[[Decoder, Node, Any, str], Any]] = {
    inspect.StructType: Decoder._struct,  # noqa: SLF001 - the class's own table
    inspect.VarTupleType: Decoder._list,  # noqa: SLF001
    inspect.DictType: Decoder._object,  # noqa: SLF001
    inspect.EnumType: Decoder._word,  # noqa: SLF001
    inspect.StrType: Decoder._string,  # noqa: SLF001
    inspect.BoolType: Decoder._boolean,  # noqa: SLF001
    inspect.IntType: Decoder._integer,  # noqa: SLF001
    inspect.AnyType: lambda _decoder, node, _kind, _path: _plain(node),
}
"""How each type that our models use is read."""


def _called(node: Node) -> str:
    """What a node is, for a sentence that says what was found."""
    if isinstance(node, Mapping):
        return "an object"
    if isinstance(node, Sequence):
        return "a list"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return f"the boolean {node.text}"
    if isinstance(node.value, int | float):
        return f"the number {node.text}"
    return repr(node.text if len(node.text) <= 80 else node.text[:80] + "…")


def _plain(node: Node) -> Any:
    """The node as plain Python values, for parts that have no model."""
    if isinstance(node, Mapping):
        return {entry.key: _plain(entry.value) for entry in node.entries}
    if isinstance(node, Sequence):
        return [_plain(item) for item in node.items]
    return node.value


def _nearest(word: str, allowed: list[str]) -> str:
    """A question, "did you mean X?", for the allowed word that is nearest, whatever its case."""
    by_lower = {candidate.lower(): candidate for candidate in allowed}
    near = get_close_matches(word.lower()[:64], list(by_lower), n=1, cutoff=0.6)
    return f"did you mean {by_lower[near[0]]}?" if near else ""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
