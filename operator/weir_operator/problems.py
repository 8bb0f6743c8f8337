"""What is wrong with a policy file, told so that the user can mend it: where, what was found, what is allowed."""

from collections.abc import Iterable

import msgspec

MAX_TEXT = 600
"""Characters of a field's name, or of what is said of it, that are printed."""


class Position(msgspec.Struct, frozen=True):
    """A place in a file; line and column count from 1, as editors do."""

    line: int
    column: int


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong. `path` is the field, such as `spec.rules[2].match.ports[0]`; empty: the file as such."""

    file: str
    position: Position | None
    path: str
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.position.line}:{self.position.column}" if self.position else self.file
        return f"{where}: {self.said}"

    @property
    def said(self) -> str:
        """The field and what is wrong with it, on one line; for where the file is known."""
        return f"{_line(self.path)}: {_line(self.text)}" if self.path else _line(self.text)


def _line(text: str) -> str:
    """Text that quotes a file, as part of one line that is fit for a terminal."""
    short = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in short)


class PolicyError(ValueError):
    """Policies that cannot be used. `problems` has at least one; the text is one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
