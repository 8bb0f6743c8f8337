"""Matches a pattern in time that grows with the text alone: every byte is looked at once, whatever the pattern is.

Glushkov's automaton (The abstract theory of automata, 1961): each byte of the pattern is a position, and a set of
positions is an integer. What follows a set is found out when it first comes up.
"""

from collections.abc import Iterator
from typing import NamedTuple

from weir_sidecar.contract.pattern import Byte, Choice, Pattern, Repeat, Sequence

_MAX_REMEMBERED = 1024
"""Sets; a text that brings up more of them makes us forget, and find out again."""


class _Part(NamedTuple):
    """Of a part of the pattern: where its matches begin and end, and whether the empty text is one."""

    first: int
    last: int
    empty: bool


_NOTHING = _Part(0, 0, empty=True)


class Automaton:
    """A pattern, ready to be asked."""

    __slots__ = ("_after", "_allowed", "_branching", "_empty", "_first", "_follow", "_last", "_linear")

    def __init__(self, pattern: Pattern) -> None:
        """`pattern` must not be larger than `contract.pattern.MAX_SIZE`."""
        self._allowed = [0] * 256
        """The positions that take this byte."""
        self._follow: list[int] = []
        """By position: those that may come next."""
        self._first, self._last, self._empty = self._build(pattern)
        self._linear = sum(1 << number for number, after in enumerate(self._follow) if after == 2 << number)
        """The positions that only the next one follows: most, and all at once by a shift."""
        self._branching = sum(1 << number for number, after in enumerate(self._follow) if after not in (0, 2 << number))
        self._after: dict[int, int] = {}

    def matches(self, text: bytes) -> bool:
        """Whether the pattern is for the whole of `text`."""
        if not text:
            return self._empty
        state, live = self._first, 0
        allowed, after = self._allowed, self._after
        for byte in text:
            live = state & allowed[byte]
            if not live:
                return False
            found = after.get(live)
            state = self._find(live) if found is None else found
        return live & self._last != 0

    def _find(self, live: int) -> int:
        if len(self._after) >= _MAX_REMEMBERED:
            self._after.clear()
        state = (live & self._linear) << 1
        for position in _positions(live & self._branching):
            state |= self._follow[position]
        self._after[live] = state
        return state

    def _build(self, pattern: Pattern) -> _Part:
        match pattern:
            case Byte(allowed):
                return self._position(allowed)
            case Sequence(parts):
                built = _NOTHING
                for part in parts:
                    built = self._then(built, self._build(part))
                return built
            case Choice(parts):
                return self._choice([self._build(part) for part in parts])
            case Repeat(part, least, most):
                return self._repeat(part, least, most)

    def _position(self, allowed: frozenset[int]) -> _Part:
        bit = 1 << len(self._follow)
        self._follow.append(0)
        for byte in allowed:
            self._allowed[byte] |= bit
        return _Part(bit, bit, empty=False)

    def _then(self, one: _Part, other: _Part) -> _Part:
        for position in _positions(one.last):
            self._follow[position] |= other.first
        first = one.first | other.first if one.empty else one.first
        last = one.last | other.last if other.empty else other.last
        return _Part(first, last, one.empty and other.empty)

    @staticmethod
    def _choice(parts: list[_Part]) -> _Part:
        first = last = 0
        for part in parts:
            first |= part.first
            last |= part.last
        return _Part(first, last, any(part.empty for part in parts))

    def _repeat(self, part: Pattern, least: int, most: int | None) -> _Part:
        built = _NOTHING
        copies = max(1, least) if most is None else most
        for number in range(copies):
            one = self._build(part)
            if most is None and number == copies - 1:
                self._then(one, one)
            built = self._then(built, one if number < least else one._replace(empty=True))
        return built


def _positions(bits: int) -> Iterator[int]:
    """The positions in a set."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
