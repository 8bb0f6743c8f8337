"""The real clocks and ids, for `EdgeContext`: cheap, since every flow asks."""

import datetime as dt
import os
import time
from itertools import count

now = time.monotonic
epoch = time.time


def spread(seconds: float) -> float:
    """A part of a time, more than a tenth, by chance: so that many that do the same do not do it at once."""
    return seconds * (0.1 + 0.9 * int.from_bytes(os.urandom(4)) / 2**32)


class WallClock:
    """The time of day as RFC 3339 text in UTC, to the millisecond; the date is written once a second."""

    __slots__ = ("_millisecond", "_second", "_seconds", "_text")

    def __init__(self) -> None:
        self._second = self._millisecond = -1
        self._seconds = self._text = ""

    def __call__(self) -> str:
        """Now."""
        millisecond = int(time.time() * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            second, fraction = divmod(millisecond, 1000)
            if second != self._second:
                self._second = second
                self._seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._text = f"{self._seconds}.{fraction:03d}Z"
        return self._text


class Ids:
    """Ids of flows: short, never given twice by one process, and most unlikely by two."""

    __slots__ = ("_numbers", "_prefix")

    def __init__(self) -> None:
        self._prefix = os.urandom(5).hex()
        self._numbers = count(1)

    def __call__(self) -> str:
        """A fresh id."""
        return f"{self._prefix}-{next(self._numbers):x}"


def utc() -> dt.datetime:
    """The time of day, aware."""
    return dt.datetime.now(dt.UTC)
