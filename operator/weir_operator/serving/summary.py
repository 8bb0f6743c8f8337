"""What the operator is told of the sidecars that are connected here: a ConfigMap of this replica's own."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Never

import msgspec

from weir_operator.kube.client import Client, Patch
from weir_operator.kube.errors import ApiError
from weir_operator.serving.log import facts
from weir_operator.serving.sessions import Session, Sessions

LABEL = "weir.dev/stream-summary"
MIN_INTERVAL = 2.0
"""Seconds between two writes."""
_MANAGER = {"fieldManager": "weir-serving", "force": "true"}

_log = logging.getLogger(__name__)

MOST_WAITS = 10
"""Of a policy: people read them."""
MOST_UNCAPTURED = 1000
"""So that a ConfigMap holds them. They are told again as the first ones are repaired."""


class Summary(msgspec.Struct):
    """What is told of the connected sidecars."""

    policies: dict[str, dict[str, int]] = {}
    """How many of them each policy is for (`connected`), and how many of those run what it now comes to (`current`)."""
    waits: dict[str, tuple[str, ...]] = {}
    """What waits for the next start of pods that a policy is for, where anything does."""
    uncaptured: tuple[str, ...] = ()
    """The UIDs of pods whose sidecars find no rules."""


class Replica(msgspec.Struct, frozen=True):
    """The pod that this process is in."""

    namespace: str
    pod: str
    uid: str


def summarise(sessions: Iterable[Session]) -> Summary:
    """Count the sessions by policy, and list those without rules."""
    policies: dict[str, dict[str, int]] = {}
    waits: dict[str, set[str]] = {}
    uncaptured = []
    for session in sessions:
        if not session.captured:
            uncaptured.append(session.pod.uid)
        for key in (*session.plan.policies, *session.plan.trust):
            counts = policies.setdefault(str(key), {"connected": 0, "current": 0})
            counts["connected"] += 1
            counts["current"] += session.current
            if session.waits:
                waits.setdefault(str(key), set()).update(session.waits)
    named = {key: tuple(sorted(names)[:MOST_WAITS]) for key, names in waits.items()}
    return Summary(policies, named, tuple(sorted(uncaptured)[:MOST_UNCAPTURED]))


def config_map(replica: Replica, summary: Summary) -> dict[str, Any]:
    """The ConfigMap, which goes when its pod goes."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": replica.pod, "uid": replica.uid}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "namespace": replica.namespace,
            "name": f"weir-stream-{replica.pod}",
            "labels": {LABEL: "true"},
            "ownerReferences": [owner],
        },
        "data": {"summary": msgspec.json.encode(summary, order="sorted").decode()},
    }


class SummaryWriter:
    """Writes the summary when it changed, at most every two seconds."""

    def __init__(self, client: Client, replica: Replica) -> None:
        self._client = client
        self._replica = replica
        self._changed = asyncio.Event()
        self._changed.set()
        self._written: Summary | None = None

    def changed(self) -> None:
        """It may be another one."""
        self._changed.set()

    async def run(self, sessions: Sessions) -> Never:
        """Write until cancelled. What cannot be written now is written later."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._write(summarise(sessions.all()))
            except ApiError as error:
                _log.warning("the summary could not be written", extra=facts(problem=str(error)))
                self._changed.set()
            await asyncio.sleep(MIN_INTERVAL)

    async def _write(self, summary: Summary) -> None:
        if summary == self._written:
            return
        made = config_map(self._replica, summary)
        path = f"/api/v1/namespaces/{self._replica.namespace}/configmaps/{made['metadata']['name']}"
        await self._client.patch(path, made, Patch.APPLY, _MANAGER)
        self._written = summary
