"""Regular expressions for paths, in RE2's syntax (https://github.com/google/re2/wiki/Syntax): what a policy may say.

What needs backtracking is not among it, so that no path can hold a sidecar up: no backreferences, no looking around.
A pattern is for the whole path, as bytes.
"""

from collections.abc import Iterable

import msgspec

MAX_LENGTH = 2000
"""Characters of a pattern."""
MAX_SIZE = 500
"""Single bytes that it describes, each repetition counted; what a long path costs grows with it."""
_MAX_NESTING = 40

ALL = frozenset(range(256))
"""Every byte."""


class PatternError(ValueError):
    """A pattern that cannot be read, or is too large: what was found, where, and what is allowed."""


class Byte(msgspec.Struct, frozen=True):
    """One of these bytes."""

    allowed: frozenset[int]


class Sequence(msgspec.Struct, frozen=True):
    """One after the other; none: the empty text."""

    parts: "tuple[Pattern, ...]"


class Choice(msgspec.Struct, frozen=True):
    """Any one."""

    parts: "tuple[Pattern, ...]"


class Repeat(msgspec.Struct, frozen=True):
    """From `least` to `most` times; None: without end."""

    part: "Pattern"
    least: int
    most: int | None


type Pattern = Byte | Sequence | Choice | Repeat


def size_of(pattern: Pattern) -> int:
    """The single bytes that it describes, each repetition counted."""
    match pattern:
        case Byte():
            return 1
        case Sequence(parts) | Choice(parts):
            return sum(map(size_of, parts))
        case Repeat(part, least, most):
            return size_of(part) * max(1, least if most is None else most)


def read_pattern(text: str) -> Pattern:
    """Read a regular expression. Raises `PatternError`."""
    if len(text) > MAX_LENGTH:
        raise PatternError(f"found {len(text)} characters; allowed: {MAX_LENGTH}")
    parser = _Parser(text)
    pattern = parser.choice()
    if parser.more:
        raise parser.error("no parenthesis is open here")
    if size_of(pattern) > MAX_SIZE:
        raise PatternError(f"it describes {size_of(pattern)} bytes, each repetition counted; allowed: {MAX_SIZE}")
    return pattern


def literal(text: str) -> Sequence:
    """This text and no other."""
    return Sequence(tuple(Byte(frozenset((byte,))) for byte in text.encode()))


def _bytes(text: str) -> frozenset[int]:
    return frozenset(text.encode())


def _range(first: str, last: str) -> frozenset[int]:
    return frozenset(range(ord(first), ord(last) + 1))


_DIGITS, _LOWER, _UPPER = _range("0", "9"), _range("a", "z"), _range("A", "Z")
_WORD = _DIGITS | _LOWER | _UPPER | _bytes("_")
_SPACE = _bytes("\t\n\f\r ")
_PUNCTUATION = _range("!", "~") - _DIGITS - _LOWER - _UPPER
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _SPACE, "D": ALL - _DIGITS, "W": ALL - _WORD, "S": ALL - _SPACE}
_CONTROLS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_POSIX = {
    "alnum": _WORD - _bytes("_"), "alpha": _LOWER | _UPPER, "digit": _DIGITS, "lower": _LOWER, "punct": _PUNCTUATION,
    "space": _SPACE | _bytes("\v"), "upper": _UPPER, "word": _WORD, "xdigit": _DIGITS | _range("a", "f") | _range("A", "F"),
}  # fmt: skip
_REPETITIONS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_NOT_NEEDED = "the whole path is compared, so that ^ and $ may stand only where the pattern begins and ends"
_NO_LOOKING = "allowed: RE2's syntax, which has no looking around, no backreferences and no conditions"


class _Parser:
    """Recursive descent over one pattern."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._folds = False

    @property
    def more(self) -> bool:
        return self._at < len(self._text)

    def error(self, text: str) -> PatternError:
        """What is wrong with what comes next."""
        found = repr(self._text[self._at]) if self.more else "its end"
        return PatternError(f"at character {self._at + 1}, {found}: {text}")

    def choice(self) -> Pattern:
        parts = [self._sequence()]
        while self._takes("|"):
            parts.append(self._sequence())
        single = [part.allowed for part in parts if isinstance(part, Byte)]
        if len(single) == len(parts):
            return Byte(frozenset[int]().union(*single))
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _sequence(self) -> Pattern:
        parts: list[Pattern] = []
        if not self._depth and not self._takes("^"):
            self._takes(r"\A")
        while self.more and self._text[self._at] not in "|)":
            if self._ends():
                break
            parts.append(self._repeated())
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _ends(self) -> bool:
        """Whether the pattern's end, or this alternative's, is spelt out here."""
        for mark in ("$", r"\z"):
            after = self._text[self._at + len(mark) :]
            if not self._depth and self._text.startswith(mark, self._at) and after[:1] in ("", "|"):
                return self._takes(mark)
        return False

    def _repeated(self) -> Pattern:
        part = self._atom()
        bounds = self._bounds()
        if bounds is None:
            return part
        self._takes("?")  # Which of several ways is taken first is the same to whoever only asks whether there is one.
        if self.more and self._text[self._at] in "*+?":
            raise self.error("a repetition of a repetition")
        return Repeat(part, *bounds) if size_of(part) else part

    def _bounds(self) -> tuple[int, int | None] | None:
        """How often what went before may be there; None: once."""
        for mark, bounds in _REPETITIONS.items():
            if self._takes(mark):
                return bounds
        return self._counted()

    def _counted(self) -> tuple[int, int | None] | None:
        """The bounds of `{2}`, `{2,}` or `{2,4}`; None: here is no such thing, and a brace stands for itself."""
        end = self._text.find("}", self._at)
        if end < 0 or not self._text.startswith("{", self._at):
            return None
        first, comma, last = self._text[self._at + 1 : end].partition(",")
        if not _is_number(first) or (last and not _is_number(last)):
            return None
        least = int(first)
        most = int(last) if last else None if comma else least
        if max(least, most or 0) > MAX_SIZE or (most is not None and most < least):
            raise self.error(f"allowed: a repetition of at most {MAX_SIZE} times, the smaller number first")
        self._at = end + 1
        return least, most

    def _atom(self) -> Pattern:
        if self._takes("("):
            return self._group()
        if self._takes("["):
            return self._byte(self._class())
        if self._takes("."):
            return Byte(ALL)
        if self._text[self._at] == "\\":
            return self._escaped()
        if self._text[self._at] in "*+?":
            raise self.error("there is nothing to repeat")
        if self._text[self._at] in "^$":
            raise self.error(_NOT_NEEDED)
        self._at += 1
        return self._letter(self._text[self._at - 1])

    def _group(self) -> Pattern:
        folds = self._folds
        if self._takes("?"):
            if self._takes("P<") or (self._text[self._at : self._at + 1] == "<" and self._names()):
                self._at = self._text.find(">", self._at) + 1 or len(self._text)
            elif self._flags():
                return Sequence(())
        self._depth += 1
        if self._depth > _MAX_NESTING:
            raise self.error(f"allowed: {_MAX_NESTING} parentheses within each other")
        pattern = self.choice()
        self._depth -= 1
        if not self._takes(")"):
            raise self.error("a parenthesis is missing")
        self._folds = folds
        return pattern

    def _names(self) -> bool:
        """Whether a group gets a name here; looking behind begins alike."""
        return self._text[self._at + 1 : self._at + 2] not in ("=", "!")

    def _flags(self) -> bool:
        """Read flags; returns whether they are for the rest of the group around them, or else for one that begins."""
        on = True
        while self.more:
            flag = self._text[self._at]
            if flag in ":)":
                self._at += 1
                return flag == ")"
            if flag == "i":
                self._folds = on
            elif flag == "-" and on:
                on = False
            elif flag != "s":
                break
            self._at += 1
        raise self.error(f"{_NO_LOOKING}; of flags, i and s")

    def _escaped(self) -> Pattern:
        members, text = self._escape()
        return self._byte(members) if members else self._letter(text)

    def _escape(self) -> tuple[frozenset[int], str]:
        """A class, or else the text that an escape stands for."""
        start = self._at
        letter = self._text[start + 1 : start + 2]
        self._at += 2
        if letter in _CLASSES:
            return _CLASSES[letter], ""
        if letter in _CONTROLS:
            return frozenset(), _CONTROLS[letter]
        if letter == "x":
            return frozenset(), self._hexadecimal(start)
        if letter and not letter.isalnum():
            return frozenset(), letter
        self._at = start
        raise self.error(f"\\{letter} is not known here; {_NO_LOOKING}; {_NOT_NEEDED}")

    def _hexadecimal(self, start: int) -> str:
        closed = self._takes("{")
        end = self._text.find("}", self._at) if closed else self._at + 2
        digits = self._text[self._at : end]
        if len(digits) < 2 - closed or not set(digits) <= set("0123456789abcdefABCDEF") or int(digits, 16) > 0x10FFFF:
            self._at = start
            raise self.error(r"allowed: two hexadecimal digits after \x, or as many as it takes within braces")
        self._at = end + closed
        return chr(int(digits, 16))

    def _class(self) -> frozenset[int]:
        negated = self._takes("^")
        members: frozenset[int] = frozenset()
        first = True
        while first or not self._takes("]"):
            first = False
            if not self.more:
                raise self.error("a bracket is missing")
            members |= self._members()
        folded = self._folded(members)
        return ALL - folded if negated else folded

    def _members(self) -> frozenset[int]:
        """One byte, a range, or a class by its name, within brackets."""
        if self._takes("[:"):
            negated = self._takes("^")
            name, colon, _ = self._text[self._at :].partition(":]")
            if not colon or name not in _POSIX:
                raise self.error(f"allowed: one of {', '.join(sorted(_POSIX))}")
            self._at += len(name) + 2
            return ALL - _POSIX[name] if negated else _POSIX[name]
        start = self._at
        members, low = self._member()
        if members or not self._text.startswith("-", self._at) or self._text[self._at + 1 : self._at + 2] in ("", "]"):
            return members or _bytes(low)
        self._at += 1
        _, high = self._member()
        if not high or high < low:
            self._at = start
            raise self.error("a range of bytes has the smaller one first")
        return _range(low, high)

    def _member(self) -> tuple[frozenset[int], str]:
        start = self._at
        if self._text[start : start + 1] == "\\":
            members, text = self._escape()
        else:
            self._at += 1
            members, text = frozenset(), self._text[start : start + 1]
        if not text.isascii():
            self._at = start
            raise self.error("brackets hold ASCII; allowed for others: (a|b), or the bytes of their UTF-8")
        return members, text

    def _letter(self, letter: str) -> Pattern:
        return self._byte(_bytes(letter)) if letter.isascii() else literal(letter)

    def _byte(self, members: Iterable[int]) -> Byte:
        return Byte(self._folded(frozenset(members)))

    def _folded(self, members: frozenset[int]) -> frozenset[int]:
        if not self._folds:
            return members
        swapped = (byte ^ 0x20 for byte in members if byte in _LOWER or byte in _UPPER)
        return members.union(swapped)

    def _takes(self, text: str) -> bool:
        """Go past this text, if it comes next."""
        found = self._text.startswith(text, self._at)
        self._at += len(text) * found
        return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 4
