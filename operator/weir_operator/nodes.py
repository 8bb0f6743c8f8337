"""YAML to a tree of values with positions, and nothing that YAML can do besides: no tags, no surprises, bounded.

The tree can also be made of plain values, which stand nowhere: what an API server has read already.

Weir reads the part of YAML on which YAML 1.1, YAML 1.2 and Kubernetes agree. A plain word that one of them takes for a
boolean, a number or a date and another for text (`no`, `010`, `22:22`) is `ambiguous`, and whoever wants it to be
something says so with quotes.
"""

import re
from collections import abc
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec
import yaml

from weir_operator.problems import PolicyError, Position, Problem

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000
"""Values in one file, with each use of an alias counted in full: what a billion laughs would exceed."""

# libyaml where PyYAML has it: a file of 1 MiB takes 0.4 s instead of 6.
_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,17}", re.ASCII)
# What PyYAML's resolvers (YAML 1.1) do not know and other readers take for something: go-yaml's booleans, octal and
# floats of YAML 1.2.
_ELSEWHERE = re.compile(r"[yYnN]|0o[0-7]+|[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?", re.ASCII)


class Scalar(msgspec.Struct, frozen=True):
    """A leaf. `value` is None, a boolean, a number or text; `ambiguous` says that readers of YAML differ about it."""

    position: Position | None
    text: str
    value: bool | int | float | str | None
    ambiguous: bool = False
    size: int = 1
    height: int = 0


class Sequence(msgspec.Struct, frozen=True):
    """A list."""

    position: Position | None
    items: tuple["Node", ...]
    size: int
    height: int


class Entry(msgspec.Struct, frozen=True):
    """One key of a mapping and its value."""

    key: str
    position: Position | None
    value: "Node"


class Mapping(msgspec.Struct, frozen=True):
    """An object; keys are text and differ."""

    position: Position | None
    entries: tuple[Entry, ...]
    size: int
    height: int


type Node = Scalar | Sequence | Mapping


def read(data: bytes, file: str) -> tuple[list[Node], list[Problem]]:
    """The documents of a YAML file, empty ones left out, up to the first error of syntax, and that error.

    Kubernetes allows several documents in a file, so what comes before the error can still be checked.
    """
    documents: list[Node] = []
    problems: list[Problem] = []
    try:
        reader = _Reader(data, file, problems)
        for event in reader.events:
            if isinstance(event, yaml.DocumentStartEvent):
                document = reader.document()
                if not (isinstance(document, Scalar) and document.value is None):
                    documents.append(document)
    except PolicyError as error:
        problems += error.problems
    return documents, problems


def node_of(value: Any) -> Node:
    """The node of a JSON value. Text is text here, whatever YAML would read it as."""
    if isinstance(value, str):
        return Scalar(None, value, value)
    if isinstance(value, abc.Mapping):
        entries = tuple([Entry(str(key), None, node_of(below)) for key, below in value.items()])
        return Mapping(None, entries, *_extent([entry.value for entry in entries]))
    if isinstance(value, list | tuple):
        items = [node_of(item) for item in value]
        return Sequence(None, tuple(items), *_extent(items))
    return Scalar(None, str(value).lower() if isinstance(value, bool) else str(value), value)


class _Reader:
    """Builds nodes from one file's events."""

    def __init__(self, data: bytes, file: str, problems: list[Problem]) -> None:
        self._file = file
        self._problems = problems
        self._anchors: dict[str, Node] = {}
        self._nodes = 0
        if len(data) > MAX_BYTES:
            self._refuse(None, f"found {len(data)} bytes; a policy file has at most {MAX_BYTES}")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            column = error.start - data.rfind(b"\n", 0, error.start)
            self._refuse(Position(line, column), f"found byte 0x{data[error.start]:02x}, which is not UTF-8")
        self._text = text
        self.events = self._parse(text)

    def document(self) -> Node:
        """The document whose start was just read."""
        self._anchors = {}
        return self._node(next(self.events), 0)

    def _parse(self, text: str) -> Iterator[yaml.Event]:
        """The events, with errors of syntax as ours."""
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = Position(mark.line + 1, mark.column + 1) if mark else None
            self._refuse(where, _syntax(error, text))
        except yaml.reader.ReaderError as error:
            character = error.character if isinstance(error.character, int) else ord(error.character[:1] or "\0")
            before = text[: text.find(chr(character))]
            where = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
            self._refuse(where, f"found the character U+{character:04X}, which YAML does not allow")

    def _node(self, event: yaml.Event, depth: int) -> Node:
        where = _position(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, where, depth)
        assert isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent)
        self._bound(where, depth, 1)
        if event.tag is not None:
            self._note(where, f"found the tag {event.tag!r}; YAML tags are not allowed")
        node: Node
        if isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(where, depth)
        elif isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(where, depth)
        else:
            node = _scalar(where, event.value, plain=event.implicit[0])
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent, where: Position, depth: int) -> Node:
        assert event.anchor is not None
        node = self._anchors.get(event.anchor)
        if node is None:
            self._refuse(
                where, f"found the alias *{event.anchor}, and no finished value before it is named &{event.anchor}"
            )
        self._bound(where, depth + node.height, node.size)
        return node

    def _sequence(self, where: Position, depth: int) -> Sequence:
        items: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Sequence(where, tuple(items), *_extent(items))

    def _mapping(self, where: Position, depth: int) -> Mapping:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            at = _position(event)
            if not isinstance(key, Scalar):
                self._refuse(at, "found a list or an object as a key; a key is a word")
            if key.text in entries:
                first = entries[key.text].position
                assert first is not None, "what is read from text has positions"
                self._note(at, f"found the key {key.text!r} twice in one object, first on line {first.line}")
            value = self._node(next(self.events), depth + 1)
            entries.setdefault(key.text, Entry(key.text, at, value))
        return Mapping(where, tuple(entries.values()), *_extent([entry.value for entry in entries.values()]))

    def _bound(self, where: Position, depth: int, more: int) -> None:
        self._nodes += more
        if depth > MAX_DEPTH:
            self._refuse(where, f"nested more than {MAX_DEPTH} levels deep")
        if self._nodes > MAX_NODES:
            self._refuse(where, f"more than {MAX_NODES} values in one file, uses of aliases counted in full")

    def _note(self, where: Position, text: str) -> None:
        """Something wrong that does not keep the rest from being read."""
        self._problems.append(Problem(self._file, where, "", text))

    def _refuse(self, where: Position | None, text: str) -> NoReturn:
        raise PolicyError([Problem(self._file, where, "", text)])


def _position(event: yaml.Event) -> Position:
    mark = event.start_mark
    assert mark is not None, "events read from text have marks"
    return Position(mark.line + 1, mark.column + 1)


def _extent(below: list[Node]) -> tuple[int, int]:
    """Size and height of a list or object of these values."""
    return 1 + sum(node.size for node in below), 1 + max((node.height for node in below), default=0)


def _scalar(where: Position, text: str, *, plain: bool) -> Scalar:
    if not plain:
        return Scalar(where, text, text)
    if text in _NULL:
        return Scalar(where, text, None)
    if text in _BOOL:
        return Scalar(where, text, _BOOL[text])
    if _INT.fullmatch(text):
        return Scalar(where, text, int(text))
    if _FLOAT.fullmatch(text):
        return Scalar(where, text, float(text))
    known = yaml.SafeLoader.yaml_implicit_resolvers.get(text[0], ())
    ambiguous = any(pattern.match(text) for _, pattern in known) or _ELSEWHERE.fullmatch(text) is not None
    return Scalar(where, text, text, ambiguous)


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    """What is wrong with the syntax; with the usual cause, a host pattern without quotes, said in our words."""
    mark = error.problem_mark
    if mark and error.context == "while scanning an alias":
        line = "".join(text.splitlines()[mark.line : mark.line + 1])
        found = re.search(r"\*[\w.*-]*", line[max(0, mark.column - 1) :])
        pattern = found.group() if found else "*"
        return f'a value that begins with * needs quotes: "{pattern}"'
    return f"not YAML: {error.problem or error.context}" + (
        f" ({error.context})" if error.problem and error.context else ""
    )
