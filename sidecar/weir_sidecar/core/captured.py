"""Bytes that are kept of what passes, so that a record can tell them: never more than there is room for.

Rooms are nested: a connection's is a part of the pod's. What is captured takes of it, and gives back when it is told.
"""

from binascii import b2a_base64

POD_BYTES = 16 << 20
FLOW_BYTES = 1 << 20


class Room:
    """How many bytes may still be kept, here and in the `outer` room."""

    __slots__ = ("_outer", "left")

    def __init__(self, size: int, outer: "Room | None" = None) -> None:
        self.left = size
        self._outer = outer

    def take(self, size: int) -> int:
        """Take as much as there is of `size`; returns how much that is."""
        possible = min(size, self.left)
        taken = possible if self._outer is None else self._outer.take(possible)
        self.left -= taken
        return taken

    def give_back(self, size: int) -> None:
        """It is not kept any more."""
        self.left += size
        if self._outer is not None:
            self._outer.give_back(size)


class Capture:
    """The first bytes of something, at most `limit`. `truncated`: there was more."""

    __slots__ = ("_limit", "_room", "kept", "truncated")

    def __init__(self, room: Room, limit: int) -> None:
        self._room = room
        self._limit = limit
        self.kept = bytearray()
        self.truncated = False

    def add(self, data: bytes, start: int, end: int) -> None:
        """Keep what is in `data` from `start` to `end`, as far as there is room."""
        if self.truncated or start >= end:
            return
        wanted = end - start
        taken = self._room.take(min(wanted, self._limit - len(self.kept)))
        self.kept += memoryview(data)[start : start + taken]
        self.truncated = taken < wanted

    def release(self) -> None:
        """Keep nothing any more."""
        self._room.give_back(len(self.kept))
        self.kept.clear()
        self.truncated = True


def told(kept: bytes, *, is_text: bool, truncated: bool) -> tuple[str, bool]:
    """Bytes as records tell them, and whether that is in Base64: what is not text in UTF-8 is.

    Where text was cut, a character that is not whole is left out.
    """
    if is_text:
        try:
            return kept.decode(), False
        except UnicodeDecodeError as error:
            if truncated and error.end == len(kept) and error.reason == "unexpected end of data":
                return kept[: error.start].decode(), False
    return b2a_base64(kept, newline=False).decode(), True
