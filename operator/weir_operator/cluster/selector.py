"""Label selectors, as metav1.LabelSelector has them: read once, asked often.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec


class SelectorError(ValueError):
    """A selector that cannot be read. `path` is the field below the selector; the text what is wrong with it."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        super().__init__(text)


class Operator(StrEnum):
    """What a requirement asks of a label. NotIn holds also where the label is not there."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class Requirement(msgspec.Struct, frozen=True):
    """One of `matchExpressions`."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels fulfil it."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels


class Selector(msgspec.Struct, frozen=True):
    """All of it must hold; an empty one selects everything."""

    labels: tuple[tuple[str, str], ...] = ()
    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it selects what has these labels."""
        for key, value in self.labels:
            if labels.get(key) != value:
                return False
        return all(requirement.holds(labels) for requirement in self.requirements)


def compile_selector(selector: Mapping[str, Any] | None) -> Selector:
    """Read a metav1.LabelSelector; None and {} select all. Raises `SelectorError`."""
    given = selector or {}
    for field in given:
        if field not in ("matchLabels", "matchExpressions"):
            raise SelectorError(field, "unknown field; allowed: matchLabels, matchExpressions")
    labels = given.get("matchLabels") or {}
    if not isinstance(labels, Mapping):
        raise SelectorError("matchLabels", f"found {labels!r}; allowed: an object of label names and their values")
    for key, value in labels.items():
        if not isinstance(value, str):
            raise SelectorError(f"matchLabels.{key}", f"found {value!r}; allowed: text")
    expressions = given.get("matchExpressions") or ()
    if not isinstance(expressions, list | tuple):
        raise SelectorError("matchExpressions", f"found {expressions!r}; allowed: a list")
    read = (_requirement(one, f"matchExpressions[{number}]") for number, one in enumerate(expressions))
    return Selector(tuple(labels.items()), tuple(read))


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a metav1.LabelSelector selects what has these labels; None and {} select all. Raises `SelectorError`."""
    return compile_selector(selector).matches(labels)


def _requirement(given: Any, path: str) -> Requirement:
    if not isinstance(given, Mapping):
        raise SelectorError(path, f"found {given!r}; allowed: an object with key, operator and values")
    unknown = next((field for field in given if field not in ("key", "operator", "values")), None)
    if unknown is not None:
        raise SelectorError(f"{path}.{unknown}", "unknown field; allowed: key, operator, values")
    key, word, values = given.get("key"), given.get("operator"), given.get("values") or []
    if not isinstance(key, str) or not key:
        raise SelectorError(f"{path}.key", f"found {key!r}; allowed: the name of a label")
    if word not in tuple(Operator):
        raise SelectorError(f"{path}.operator", f"found {word!r}; allowed: {', '.join(Operator)}")
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise SelectorError(f"{path}.values", f"found {values!r}; allowed: a list of text")
    operator = Operator(word)
    needs = operator in (Operator.IN, Operator.NOT_IN)
    if needs != bool(values):
        allowed = "at least one value" if needs else "no values"
        raise SelectorError(f"{path}.values", f"found {values!r}; allowed with {operator}: {allowed}")
    return Requirement(key, operator, frozenset(values))
