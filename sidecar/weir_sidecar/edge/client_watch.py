"""Watches one intercepted client for what it says about the CA, and tells the trust cache (`core.tls_outcome`)."""

import asyncio
from collections.abc import Callable

from weir_sidecar.core.tls_outcome import SETTLED, STALLED, ClientEnd, ClientSide
from weir_sidecar.core.trust_cache import Ticket
from weir_sidecar.edge.tls_session import Session
from weir_sidecar.edge.trust_gate import TrustGate

_TIMER_ERROR = 0.001
"""A timer may ring a moment before its time; asked then, a settled client would not have settled yet."""


class ClientWatch:
    """From the moment our Certificate goes out until the client's first byte, or its end. `clock`: monotonic seconds."""

    __slots__ = ("_clock", "_completed", "_flight_at", "_loop", "_session", "_ticket", "_timer", "_trust", "proven")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        trust: TrustGate,
        ticket: Ticket,
        session: Session,
        clock: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._trust = trust
        self._ticket = ticket
        self._session = session
        self._clock = clock
        self._completed = False
        self.proven = False
        self._flight_at = clock()
        self._timer: asyncio.TimerHandle
        self._ask_after(STALLED)

    def completed(self) -> None:
        """The handshake is over, which proves nothing yet."""
        self._completed = True
        self._timer.cancel()
        self._ask_after(SETTLED)

    def first_byte(self) -> None:
        """The client sent its first application byte: it trusts."""
        self.proven = True
        self._timer.cancel()
        self._tell(ClientEnd.OPEN)

    def ended(self, end: ClientEnd) -> None:
        """The connection is over; `end` says who ended it and how."""
        self._timer.cancel()
        if not self.proven:
            self._tell(end)

    def close(self) -> None:
        """No more will be told."""
        self._timer.cancel()
        self._trust.abandon(self._ticket)

    def _ask_after(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds + _TIMER_ERROR, self._tell, ClientEnd.OPEN)

    def _tell(self, end: ClientEnd) -> None:
        self._trust.report(
            self._ticket,
            ClientSide(
                end=end,
                alert=self._session.alert,
                certificate_sent=True,
                handshake_completed=self._completed,
                application_bytes=int(self.proven),
                seconds_after_flight=self._clock() - self._flight_at,
            ),
        )
