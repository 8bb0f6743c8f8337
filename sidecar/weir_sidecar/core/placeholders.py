"""Looks for placeholders of credentials in what passes, whatever pieces it comes in. Pure; holds nothing back."""

from collections.abc import Iterable


class BodyWatch:
    """One body. It remembers no more of it than a placeholder is long."""

    __slots__ = ("_keep", "_last", "_placeholders")

    def __init__(self, placeholders: tuple[bytes, ...]) -> None:
        self._placeholders = placeholders
        self._keep = max(map(len, placeholders)) - 1
        self._last = b""

    def finds(self, data: bytes, start: int, end: int) -> bool:
        """Whether a placeholder ends in the next piece, `data` from `start` to `end`."""
        keep = self._keep
        # What came last, and as much of the beginning as a placeholder may reach into.
        seam = self._last + data[start : min(end, start + keep)]
        self._last = (self._last + data[max(start, end - keep) : end])[-keep:]
        return any(one in seam or data.find(one, start, end) >= 0 for one in self._placeholders)

    def finds_in(self, data: bytes, places: Iterable[tuple[int, int]]) -> bool:
        """Whether one ends in the next pieces, which are at these places in `data`."""
        return any(self.finds(data, start, end) for start, end in places)

    def found(self, fields: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a placeholder is in any of these header fields, as of trailers."""
        return any(one in text for field in fields for text in field for one in self._placeholders)
