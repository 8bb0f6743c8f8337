"""What pods tell of trust, written into TrustExceptions: merged with what others write, and no oftener than useful."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from weir_operator.cluster.facts import PodFacts, Workload
from weir_operator.kube.client import Client
from weir_operator.kube.errors import ApiError, Reason
from weir_operator.models import GROUP
from weir_operator.serving.exceptions import (
    NOTEWORTHY,
    Seen,
    Subject,
    merge,
    new_object,
    object_name,
    read_seen,
    write_seen,
)
from weir_operator.serving.knowledge import Exceptions
from weir_operator.serving.log import facts
from weir_operator.serving.metrics import Metrics
from weir_sidecar.contract.trust import Told

MIN_INTERVAL = 1.0
"""Seconds between two writes of one object, unless its state changes."""
MAX_PER_WORKLOAD = 256
"""TrustExceptions that the pods of one workload can bring about: a pod may make up hosts and clients without end."""
AT_ONCE = 8
_LATER = (0.5, 10.0)
"""Seconds between attempts while the API server is away: first, longest."""
_PATIENCE = 60.0
"""Seconds for which a refusal is not believed: an API server that has just started knows no roles yet."""
_FINAL = frozenset({Reason.INVALID, Reason.BAD_REQUEST, Reason.NOT_FOUND})
"""What no patience helps against: the schema lets it not in, or its namespace is gone."""

_log = logging.getLogger(__name__)

type _Key = tuple[str, Subject]


class Write(StrEnum):
    """What came of an attempt. OVERTAKEN: somebody else changed the object meanwhile."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    NOT_NOTEWORTHY = "not_noteworthy"
    OVERTAKEN = "overtaken"


class _Pending:
    """What is to be written of one subject: the latest word of each pod."""

    def __init__(self) -> None:
        self.told: dict[str, Told] = {}
        self.urgent = asyncio.Event()


class ExceptionWriter:
    """Takes reports at any time; each subject that has news has a task that writes it, and ends."""

    def __init__(self, client: Client, exceptions: Exceptions, clock: Callable[[], float], metrics: Metrics) -> None:
        self._client = client
        self._exceptions = exceptions
        self._clock = clock
        self._metrics = metrics
        self._pending: dict[_Key, _Pending] = {}
        self._coming: Counter[tuple[str, Workload | None]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)

    def report(self, pod: PodFacts, entries: Sequence[Told]) -> None:
        """Take what a pod tells; written soon."""
        self._metrics.reports.add(amount=len(entries))
        for told in entries:
            key = (pod.namespace, Subject(pod.workload, told.host, told.uid, told.ja4))
            if self._wanted(key, told):
                self._put(key, pod.name, told)

    def _wanted(self, key: _Key, told: Told) -> bool:
        namespace, subject = key
        if key in self._pending or self._exceptions.about(namespace, subject) is not None:
            return True
        if told.state not in NOTEWORTHY:
            return False
        coming = self._coming[namespace, subject.workload]
        if self._exceptions.count(namespace, subject.workload) + coming >= MAX_PER_WORKLOAD:
            self._metrics.exceptions_dropped.add("too_many")
            return False
        return True

    def _put(self, key: _Key, pod: str, told: Told) -> None:
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = _Pending()
            self._coming[key[0], key[1].workload] += 1
            task = asyncio.get_running_loop().create_task(self._write_all(key, pending))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        pending.told[pod] = told
        known = self._exceptions.about(*key)
        if known is None or known.seen is None or known.seen.state is not told.state:
            pending.urgent.set()

    async def _write_all(self, key: _Key, pending: _Pending) -> None:
        """Write as long as there is news, with a pause after each write that only news of another state cuts short."""
        try:
            while pending.told:
                told, pending.told = pending.told, {}
                pending.urgent.clear()
                await self._write_until_done(key, told)
                try:
                    async with asyncio.timeout(MIN_INTERVAL):
                        await pending.urgent.wait()
                except TimeoutError:
                    continue
        finally:
            del self._pending[key]
            whose = key[0], key[1].workload
            self._coming[whose] -= 1
            if not self._coming[whose]:
                del self._coming[whose]

    async def _write_until_done(self, key: _Key, told: dict[str, Told]) -> None:
        pause, longest = _LATER
        began = self._clock()
        while True:
            try:
                async with self._slots:
                    result = await self._write(key, told)
            except ApiError as error:
                if error.reason in _FINAL or (not error.passing and self._clock() - began > _PATIENCE):
                    self._give_up(key, error)
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            self._metrics.exception_writes.add(result)
            if result is not Write.OVERTAKEN:
                return
            await asyncio.sleep(random.uniform(0.0, MIN_INTERVAL / 4))  # noqa: S311 - so that replicas do not keep step

    def _give_up(self, key: _Key, error: ApiError) -> None:
        """It cannot be written: the schema lets no such host in, or its namespace is being deleted (403) or gone."""
        self._metrics.exceptions_dropped.add(error.reason.value)
        about = facts(namespace=key[0], subject=msgspec.to_builtins(key[1]), problem=str(error))
        _log.warning("what a sidecar told could not be written to a TrustException", extra=about)

    async def _write(self, key: _Key, told: dict[str, Told]) -> Write:
        """Merge into what is there now, if nobody else writes meanwhile. Raises `ApiError`."""
        namespace, subject = key
        known = self._exceptions.about(namespace, subject)
        name = known.name if known else object_name(subject)
        collection = f"{GROUP}/namespaces/{namespace}/trustexceptions"
        obj = await self._get(f"{collection}/{name}")
        if obj is None:
            if not any(one.state in NOTEWORTHY for one in told.values()):
                return Write.NOT_NOTEWORTHY
            try:
                obj = await self._client.create(collection, new_object(namespace, name, subject))
            except ApiError as error:
                if error.reason is Reason.ALREADY_EXISTS:
                    return Write.OVERTAKEN
                raise
        before = obj.get("status")
        status = write_seen(self._merged(read_seen(before), told), before)
        if status == before:
            return Write.UNCHANGED
        try:
            await self._client.replace(f"{collection}/{name}/status", {**obj, "status": status})
        except ApiError as error:
            if error.reason in (Reason.CONFLICT, Reason.NOT_FOUND):
                return Write.OVERTAKEN
            raise
        return Write.WRITTEN

    async def _get(self, path: str) -> dict[str, Any] | None:
        try:
            return await self._client.get(path)
        except ApiError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise

    def _merged(self, seen: Seen | None, told: Mapping[str, Told]) -> Seen:
        for pod, one in told.items():
            seen = merge(seen, one, pod, self._clock())
        assert seen is not None, "only what has news is written"
        return seen
