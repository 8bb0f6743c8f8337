"""Gives memory back after a rush: the C library keeps what many flows needed, for ever, unless it is asked."""

import asyncio
from collections.abc import Callable

_INTERVAL = 30.0
_RUSH = 64
"""Flows more than now: less than that is not worth the time it takes to look."""


class Tidy:
    """Asks every half minute whether a rush has passed. `trim` is malloc_trim(3).

    `open_flows` is how many there are, `busiest` the most there were since it was last asked.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        open_flows: Callable[[], int],
        busiest: Callable[[], int],
        trim: Callable[[], None],
        interval: float = _INTERVAL,
    ) -> None:
        self._loop = loop
        self._open_flows = open_flows
        self._busiest = busiest
        self._trim = trim
        self._interval = interval
        self._timer = loop.call_later(interval, self._look)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._busiest() - self._open_flows() >= _RUSH:
            self._trim()
        self._timer = self._loop.call_later(self._interval, self._look)


def malloc_trim() -> Callable[[], None]:
    """The C library's own; where it has none (musl), nothing. To be asked for before privileges are dropped."""
    import ctypes  # noqa: PLC0415 - dropping privileges imports it too

    libc = ctypes.CDLL(None)
    trim = getattr(libc, "malloc_trim", None)
    return (lambda: None) if trim is None else (lambda: trim(0))
