"""Keeps the Secrets and the webhook configurations at what `certificates` says they ought to be."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from weir_operator.kube.client import Client, Patch
from weir_operator.kube.errors import ApiError, Reason
from weir_operator.kube.reflector import Reflector, plain
from weir_operator.operate import certificates, secrets
from weir_operator.operate.metrics import Metrics
from weir_operator.operate.reconcile import FIELD_MANAGER

_log = logging.getLogger(__name__)

WEBHOOKS = {"mutatingwebhookconfigurations": "weir-mutating", "validatingwebhookconfigurations": "weir-validating"}
TICK_SECONDS = 60.0
"""Without any change, for what time alone brings about; more often where the overlap is short."""
GATHER_SECONDS = 0.2
"""How long changes are gathered before they are looked at: one's own writes come back one by one."""
RETRY_SECONDS = 2.0
_OVERTAKEN = frozenset({Reason.CONFLICT, Reason.ALREADY_EXISTS, Reason.NOT_FOUND, Reason.INVALID})
"""Somebody was faster. (A JSON patch whose test fails is Invalid.) What is seen next decides."""


class Names(msgspec.Struct, frozen=True):
    """Where things are. `deployment` owns the Secrets, so that they go when the installation does."""

    namespace: str
    ca_secret: str
    serving_secret: str
    deployment: str


class Keeper:
    """Watches the two Secrets and the two webhook configurations, by their names, and keeps them."""

    def __init__(
        self, client: Client, names: Names, overlap: timedelta, clock: Callable[[], datetime], metrics: Metrics
    ) -> None:
        self._client = client
        self._names = names
        self._overlap = overlap
        self._clock = clock
        self._metrics = metrics
        self._changed = asyncio.Event()
        self._path = f"/api/v1/namespaces/{names.namespace}/secrets"
        self._ca = self._follow(self._path, names.ca_secret)
        self._serving = self._follow(self._path, names.serving_secret)
        self._webhooks = {
            f"{_REGISTRATION}/{plural}": self._follow(f"{_REGISTRATION}/{plural}", name)
            for plural, name in WEBHOOKS.items()
        }

    async def run(self) -> None:
        """Keep them until cancelled."""
        reflectors = (self._ca, self._serving, *self._webhooks.values())
        async with asyncio.TaskGroup() as tasks:
            for reflector in reflectors:
                tasks.create_task(reflector.run())
            for reflector in reflectors:
                await reflector.synced()
            while True:
                self._changed.clear()
                if await self._attempt(self._once()):
                    await self._next_change()
                else:
                    await asyncio.sleep(RETRY_SECONDS)

    async def _once(self) -> None:
        """In this order, so that nobody meets a certificate of a CA that it was not told of."""
        ca, serving = self._ca.one(), self._serving.one()
        kept = certificates.renew(
            secrets.held(ca, serving),
            certificates.service_names(self._names.namespace),
            self._clock(),
            self._overlap,
            secrets.forced(ca, serving),
        )
        await self._write(ca, self._names.ca_secret, secrets.ca_data(kept))
        for path, followed in self._webhooks.items():
            await self._trust(path, followed.one(), kept.bundle)
        await self._write(serving, self._names.serving_secret, secrets.serving_data(kept))
        self._metrics.certificates(
            {
                "ca": certificates.expiry(kept.authority.certificate),
                "serving": certificates.expiry(kept.serving.certificate),
            }
        )

    async def _write(self, secret: Mapping[str, Any] | None, name: str, data: Mapping[str, str]) -> None:
        if secrets.updated(secret, name, data, None) is None:
            return
        manifest = secrets.updated(secret, name, data, await self._owner())
        assert manifest is not None
        if secret is None:
            await self._client.create(self._path, manifest)
        else:
            await self._client.replace(f"{self._path}/{name}", manifest)
        _log.info("wrote Secret %s/%s", self._names.namespace, name)

    async def _trust(self, path: str, configuration: Mapping[str, Any] | None, bundle: bytes) -> None:
        patch = secrets.bundle_patch(configuration, bundle) if configuration else []
        if configuration and patch:
            name = configuration["metadata"]["name"]
            await self._client.patch(f"{path}/{name}", patch, Patch.JSON, {"fieldManager": FIELD_MANAGER})
            _log.info("put the CA into %s", name)

    async def _owner(self) -> dict[str, Any] | None:
        path = f"/apis/apps/v1/namespaces/{self._names.namespace}/deployments/{self._names.deployment}"
        try:
            found = await self._client.get(path)
        except ApiError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            _log.warning("there is no Deployment %s: the Secrets will stay behind", self._names.deployment)
            return None
        uid = found["metadata"]["uid"]
        return {"apiVersion": "apps/v1", "kind": "Deployment", "name": self._names.deployment, "uid": uid}

    async def _attempt(self, work: Awaitable[None]) -> bool:
        """Whether it went well."""
        try:
            await work
        except ApiError as error:
            if error.reason in _OVERTAKEN:
                _log.info("the certificates changed meanwhile: %s", error)
            else:
                self._metrics.certificate_errors += 1
                _log.warning("cannot keep the certificates: %s", error)
            return False
        return True

    async def _next_change(self) -> None:
        try:
            async with asyncio.timeout(min(TICK_SECONDS, self._overlap.total_seconds() / 8)):
                await self._changed.wait()
        except TimeoutError:
            return
        await asyncio.sleep(GATHER_SECONDS)

    def _follow(self, path: str, name: str) -> "_One":
        return _One(self._client, path, name, self._changed.set)


class _One:
    """One object, by its name: watching a single name is all that the operator's role allows."""

    def __init__(self, client: Client, path: str, name: str, on_change: Callable[[], None]) -> None:
        self._reflector = Reflector(
            client, path, plain, field_selector=f"metadata.name={name}", on_problem=_log.warning
        )
        self._reflector.subscribe(lambda *_: on_change())
        self.run = self._reflector.run
        self.synced = self._reflector.synced

    def one(self) -> dict[str, Any] | None:
        return next(iter(self._reflector.objects.values()), None)


_REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
