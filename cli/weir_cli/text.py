"""Text that came over the network, made fit for a terminal, and columns of it."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

# Control, format (bidirectional overrides, zero width), surrogate, private use, unassigned, line and paragraph ends.
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))

_INDENT = 4


def printable(text: str) -> str:
    """The text with all that could steer a terminal or mislead the eye as an escape sequence of Python's."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if unicodedata.category(char) not in _UNSAFE else char.encode("unicode_escape").decode() for char in text
    )


def width(text: str) -> int:
    """How many columns of a terminal the text takes, which must be printable."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if char.isascii():
        return 1
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def fit(text: str, columns: int, *, right: bool = False) -> str:
    """The text in exactly so many columns: filled up with spaces, at its left if `right`, or cut with an ellipsis."""
    taken = width(text)
    if taken > columns:
        text = _cut(text, columns - 1) + "…" if columns else ""
        taken = width(text)
    return " " * (columns - taken) + text if right else text + " " * (columns - taken)


def _cut(text: str, columns: int) -> str:
    for end, char in enumerate(text):
        columns -= _columns(char)
        if columns < 0:
            return text[:end]
    return text


def wrapped(text: str, columns: int) -> Iterator[str]:
    """The text in pieces that are no wider, those after the first indented. Where that leaves no room, the text."""
    if columns <= 2 * _INDENT or width(text) <= columns:
        yield text
        return
    start, room, indent = 0, columns, ""
    for end, char in enumerate(text):
        room -= _columns(char)
        if room < 0:
            yield indent + text[start:end]
            indent = " " * _INDENT
            start, room = end, columns - _INDENT - _columns(char)
    yield indent + text[start:]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, made printable."""
    cells = [tuple(head), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)
