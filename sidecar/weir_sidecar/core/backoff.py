"""How long to wait before the next attempt: exponential, with full jitter, so that a crowd does not come at once. Pure."""

from collections.abc import Callable

FIRST = 0.5
LONGEST = 30.0
"""Seconds that the first and the last of a row of attempts wait at most."""
REFUSED = 60.0
"""Seconds, about, after an answer that will not soon be another one."""


class Backoff:
    """`random` gives numbers from 0 to 1."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0

    def succeeded(self) -> None:
        """An attempt was good: the row is over."""
        self._failures = 0

    def failed(self) -> float:
        """Seconds to wait after one more failure in a row."""
        # Bounded before it is raised to a power: a row of failures may be long.
        longest = min(LONGEST, FIRST * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return longest * self._random()

    def refused(self) -> float:
        """Seconds to wait after a refusal."""
        return REFUSED * (0.5 + self._random())
