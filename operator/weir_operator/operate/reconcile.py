"""Brings statuses to what they ought to be, and deletes what has had its time. One run at a time, each from the whole."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from weir_operator.cluster.policies import PolicyKey
from weir_operator.kube.client import Client, Patch
from weir_operator.kube.errors import ApiError, Reason
from weir_operator.operate.expiry import deletable
from weir_operator.operate.metrics import Metrics
from weir_operator.operate.observed import Observed
from weir_operator.operate.pods import tally
from weir_operator.operate.repair import Choice
from weir_operator.operate.repairer import Repairer
from weir_operator.operate.statuses import Status, differs, statuses
from weir_operator.operate.world import EXCEPTION, Object, World, path_of

_log = logging.getLogger(__name__)

FIELD_MANAGER = "weir-operator"
GATHER_SECONDS = 0.1
"""How long changes are gathered before they are looked at: a rollout makes many at once."""
PACE_SECONDS = 2.0
"""Between two runs: the most often that a status is written, however many pods start."""
TICK_SECONDS = 30.0
"""Without any change: for what time alone brings about."""
MAX_BACKOFF_SECONDS = 60.0
_WRITERS = 8
_NO_LONGER_THAT = frozenset({Reason.NOT_FOUND, Reason.CONFLICT})


class Reconciler:
    """Call `touch` at each change; `run` does the rest."""

    def __init__(self, client: Client, clock: Callable[[], datetime], metrics: Metrics, choice: Choice) -> None:
        self._client = client
        self._clock = clock
        self._metrics = metrics
        self._changed = asyncio.Event()
        self._writers = asyncio.Semaphore(_WRITERS)
        self._written: dict[PolicyKey, tuple[Status, object]] = {}
        self._repairer = Repairer(client, choice, clock, metrics, self.touch)

    def touch(self) -> None:
        """Something has changed."""
        self._changed.set()

    async def run(self, observed: Observed) -> None:
        """Reconcile until cancelled; what fails is tried again, later and later."""
        await observed.synced()
        backoff = PACE_SECONDS
        self.touch()
        while True:
            await self._next_change()
            self._changed.clear()
            began = time.monotonic()
            failed = await self._once(observed)
            self._metrics.reconciled(time.monotonic() - began, failed)
            backoff = min(2 * backoff, MAX_BACKOFF_SECONDS) if failed else PACE_SECONDS
            if failed:
                self.touch()
            await asyncio.sleep(backoff)

    async def _next_change(self) -> None:
        try:
            async with asyncio.timeout(TICK_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            return
        await asyncio.sleep(GATHER_SECONDS)

    async def _once(self, observed: Observed) -> int:
        """One run; how many writes failed."""
        world, now = observed.world(), self._clock()
        tallies = tally(world)
        wanted = statuses(world, tallies, now)
        self._metrics.observe(world, tallies, wanted)
        self._written = {key: value for key, value in self._written.items() if key in wanted}
        over = {key for key, obj in world.objects.items() if key.kind == EXCEPTION and deletable(obj, now)}
        writes = [self._attempt(self._delete(observed, key, world.objects[key]), key) for key in over]
        writes += [
            self._attempt(self._patch(observed, world, key, status), key)
            for key, status in wanted.items()
            if key not in over and self._due(world, key, status)
        ]
        return sum(await asyncio.gather(*writes)) + await self._repairer.run(world, tallies)

    def _due(self, world: World, key: PolicyKey, status: Status) -> bool:
        """Whether a status is to be written: it is not what it ought to be, and was not just written so.

        The latter keeps an API server that stores less than it was given, for having an older CRD, from being asked
        again and again.
        """
        obj = world.objects[key]
        return differs(obj, status) and self._written.get(key) != (status, obj.get("status"))

    async def _patch(self, observed: Observed, world: World, key: PolicyKey, status: Status) -> None:
        path, params = f"{path_of(key)}/status", {"fieldManager": FIELD_MANAGER}
        try:
            stored = await self._client.patch(path, {"status": status}, Patch.MERGE, params)
        except ApiError as error:
            if error.reason is Reason.NOT_FOUND:
                observed.store.drop(key)
            elif error.reason is Reason.INVALID:  # it would be again
                _log.error("the status of %s is refused: %s", key, error)
                self._written[key] = (status, world.objects[key].get("status"))
            else:
                raise
            return
        self._metrics.wrote(key.kind)
        self._written[key] = (status, stored.get("status"))
        observed.store.put(stored)

    async def _delete(self, observed: Observed, key: PolicyKey, obj: Object) -> None:
        metadata = obj["metadata"]
        exactly = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        try:
            await self._client.delete(path_of(key), {"preconditions": exactly})
        except ApiError as error:
            if error.reason not in _NO_LONGER_THAT:  # else it was seen again, or decided, just now
                raise
        else:
            _log.info("deleted %s: nobody decided it, and its time was over long ago", key)
            observed.store.drop(key, metadata["uid"])

    async def _attempt(self, write: Awaitable[None], key: PolicyKey) -> int:
        """Write; 1 if it failed."""
        async with self._writers:
            try:
                await write
            except ApiError as error:
                _log.warning("cannot write %s: %s", key, error)
                return 1
        return 0
