"""All that is followed at the API server, put together to a `World`."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from weir_operator.cluster.facts import NamespaceFacts, PodFacts, namespace_facts, pod_facts
from weir_operator.cluster.policies import Policies, PolicyKey
from weir_operator.kube.client import Client
from weir_operator.kube.errors import ApiError
from weir_operator.kube.kubeconfig import Access
from weir_operator.kube.reflector import Reflector, plain
from weir_operator.models import GROUP, PLURALS
from weir_operator.operate.store import Store
from weir_operator.operate.watch import Watcher
from weir_operator.operate.world import EXCEPTION, Object, World, told

_log = logging.getLogger(__name__)

SUMMARY_LABEL = "weir.dev/stream-summary"
RELIST_SECONDS = 300.0
"""How often everything of ours is listed again: kopf does not tell what was deleted while it was not connected."""
_RETRY_SECONDS = 5.0


class Observed:
    """Follows policies, TrustExceptions, namespaces, pods and the summaries of the serving replicas."""

    def __init__(
        self,
        client: Client,
        access: Access,
        namespace: str,
        excluded: frozenset[str],
        on_change: Callable[[], None],
    ) -> None:
        self._client = client
        self._access = access
        self.store = Store(on_change)
        self._excluded = excluded
        self._policies = Policies.of(())
        self._read: list[Object] = []
        self._listed = asyncio.Event()
        self._namespaces = Reflector(
            client, "/api/v1/namespaces", _namespace, metadata_only=True, on_problem=_log.warning
        )
        self._pods = Reflector(client, "/api/v1/pods", _pod, on_problem=_log.warning)
        self._summaries = Reflector(
            client,
            f"/api/v1/namespaces/{namespace}/configmaps",
            plain,
            label_selector=f"{SUMMARY_LABEL}=true",
            on_problem=_log.warning,
        )
        for reflector in (self._namespaces, self._pods, self._summaries):
            reflector.subscribe(lambda *_: on_change())

    async def run(self) -> None:
        """Follow until cancelled."""
        watcher = Watcher(self._access, self.store.seen)
        watcher.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                for reflector in (self._namespaces, self._pods, self._summaries):
                    tasks.create_task(reflector.run())
                tasks.create_task(self._relist())
        finally:
            await watcher.stop()

    async def synced(self) -> None:
        """Wait until all of it was seen once."""
        for reflector in (self._namespaces, self._pods, self._summaries):
            await reflector.synced()
        await self._listed.wait()

    def world(self) -> World:
        """The cluster as it is known now."""
        objects = dict(self.store.objects)
        own = [obj for key, obj in objects.items() if key.kind != EXCEPTION]
        if [id(obj) for obj in own] != [id(obj) for obj in self._read]:
            self._policies, self._read = self._policies.followed_by(own), own
        sidecars = told(self._summaries.objects.values())
        return World(
            policies=self._policies,
            objects=objects,
            namespaces={one.name: one for one in self._namespaces.objects.values()},
            pods=tuple(self._pods.objects.values()),
            current=sidecars.current,
            excluded=self._excluded,
            uncaptured=sidecars.uncaptured,
            waits=sidecars.waits,
        )

    async def _relist(self) -> None:
        while True:
            before: Mapping[PolicyKey, Object] = dict(self.store.objects)
            try:
                listed = [obj for kind in PLURALS for obj in await self._list(kind)]
            except ApiError as error:
                _log.warning("cannot list the objects of weir.dev: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self.store.relist(before, listed)
                self._listed.set()
                await asyncio.sleep(RELIST_SECONDS)

    async def _list(self, kind: str) -> list[Object]:
        items = await self._client.list(f"{GROUP}/{PLURALS[kind]}")
        return [{"apiVersion": "weir.dev/v1alpha1", **item, "kind": kind} for item in items]


def _pod(raw: msgspec.Raw) -> PodFacts:
    return pod_facts(plain(raw))


def _namespace(raw: msgspec.Raw) -> NamespaceFacts:
    namespace: dict[str, Any] = plain(raw)
    return namespace_facts(namespace)
