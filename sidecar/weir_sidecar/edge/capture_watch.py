"""Whether the pod is captured, as long as it runs: in CNI mode others load its rules, late maybe, and others may take them away.

The rules are asked (`rules_answer`), so no capability and nobody's word is needed.
"""

import asyncio
from collections.abc import Callable

from weir_sidecar.contract.capture import CaptureReason

INTERVAL = 2.0
"""Seconds between two looks, which cost two system calls each."""
_TIMES = 2
"""How often rules must not answer, one time after the other, before they are taken to be lost."""


class CaptureWatch:
    """Looks each `interval` seconds until closed. `changed` is told of each change."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answers: Callable[[], bool],
        changed: Callable[[CaptureReason], None],
        *,
        captured: bool,
        interval: float = INTERVAL,
    ) -> None:
        self.captured = captured
        self._loop = loop
        self._answers = answers
        self._changed = changed
        self._interval = interval
        self._silent = 0
        self._timer = loop.call_later(interval, self._look)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._look)
        answered = self._answers()
        self._silent = 0 if answered else self._silent + 1
        if answered and not self.captured:
            self.captured = True
            self._changed(CaptureReason.REPAIRED)
        elif self.captured and self._silent >= _TIMES:
            self.captured = False
            self._changed(CaptureReason.RULES_LOST)
