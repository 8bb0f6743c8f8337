"""The trust cache's place in the event loop: flows wait here for a canary, and outcomes wake them."""

import asyncio
from collections.abc import Callable

from weir_sidecar.contract.flow import Reason
from weir_sidecar.core.tls_outcome import ClientSide, classify
from weir_sidecar.core.trust_cache import Bypass, InterceptNow, Ticket, TrustCache
from weir_sidecar.core.trust_entry import Key


class TrustGate:
    """Asks the cache for a flow, waits where it says so, and passes on what was seen."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        cache: TrustCache,
        epoch: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        """`epoch`: seconds since the epoch. `changed` is called when something was learned or said."""
        self._loop = loop
        self.cache = cache
        self._epoch = epoch
        self._changed = changed
        self._revision = cache.revision
        self._waiting: dict[Key, list[asyncio.Future[None]]] = {}

    def bypass(self, host: str, uid: int | None, ja4: str | None) -> Reason | None:
        """Why the flow is to be passed through, if that is known already; asks nobody to wait."""
        admission = self.cache.admit(host, uid, ja4, self._epoch())
        if isinstance(admission, InterceptNow):
            self.abandon(admission.ticket)
        self._notice()
        return admission.reason if isinstance(admission, Bypass) else None

    async def admit(self, host: str, uid: int | None, ja4: str | None) -> tuple[Reason | None, Ticket | None]:
        """A ticket where the flow may be intercepted, with a reason if not the policy's own; else why not."""
        since = self._epoch()
        now = since
        while True:
            admission = self.cache.admit(host, uid, ja4, now, since)
            self._notice()
            match admission:
                case InterceptNow(reason=reason, ticket=ticket):
                    return reason, ticket
                case Bypass(reason=reason):
                    return reason, None
                case _:
                    await self._wait(admission.key, admission.until - now)
                    now = self._epoch()

    def report(self, ticket: Ticket, side: ClientSide) -> None:
        """Tell the cache what was seen of a client."""
        self._wake(self.cache.report(ticket, classify(side), side.alert, self._epoch()))
        self._notice()

    def abandon(self, ticket: Ticket) -> None:
        """Nothing will be seen of this client."""
        self._wake(self.cache.abandon(ticket))
        self._notice()

    def remember_client_certificate(self, host: str) -> None:
        """The upstream asks clients for certificates."""
        self.cache.remember_client_certificate(host, self._epoch())
        self._notice()

    def wake_all(self) -> None:
        """Something was said or forgotten: everybody asks again."""
        self._wake(tuple(self._waiting))
        self._notice()

    async def _wait(self, key: Key, seconds: float) -> None:
        future = self._loop.create_future()
        self._waiting.setdefault(key, []).append(future)
        timer = self._loop.call_later(max(seconds, 0.001), _resolve, future)
        try:
            await future
        finally:
            timer.cancel()
            waiting = self._waiting.get(key)
            if waiting is not None and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiting[key]

    def _wake(self, keys: tuple[Key, ...]) -> None:
        for key in keys:
            for future in self._waiting.pop(key, ()):
                _resolve(future)

    def _notice(self) -> None:
        if self.cache.revision != self._revision:
            self._revision = self.cache.revision
            self._changed()


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
