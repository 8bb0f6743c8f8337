"""kopf, as a library: it follows the kinds of `weir.dev`, and tells each event to the store.

It is used for no more than events: no finalizer and no annotation is put on users' objects, nothing is posted, and what
is to be done follows from the state of the world, not from what happened to it. It has a thread and an event loop of its
own, because it ends all tasks of its loop when it ends; then it is started again.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import aiohttp
import kopf

from weir_operator.kube.client import tls_context
from weir_operator.kube.kubeconfig import Access
from weir_operator.models import PLURALS
from weir_operator.operate.world import Object

_log = logging.getLogger(__name__)

RESTART_SECONDS = 5.0
_STOP_SECONDS = 5.0

type Seen = Callable[[str | None, Object], None]


class Watcher:
    """Follows all policies and TrustExceptions, from `start` to `stop`. `seen` is called in the loop that started it."""

    def __init__(self, access: Access, seen: Seen) -> None:
        self._access = access
        self._seen = seen
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. Events from before are told too: kopf lists first."""
        loop = asyncio.get_running_loop()

        def seen(kind: str | None, obj: Object) -> None:
            loop.call_soon_threadsafe(self._seen, kind, obj)

        registry = _registry(self._access, seen)
        self._thread = threading.Thread(target=self._run, args=(registry,), name="kopf", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End, and wait for it, but not for ever."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    def _run(self, registry: kopf.OperatorRegistry) -> None:
        while not self._stop.is_set():
            try:
                kopf.run(
                    registry=registry, settings=_settings(), standalone=True, clusterwide=True, stop_flag=self._stop
                )
            except Exception:  # noqa: BLE001 - whatever it was, the listings go on without it, and it starts anew
                _log.exception("kopf ended; it starts again in %g s", RESTART_SECONDS)
            self._stop.wait(RESTART_SECONDS)


def _registry(access: Access, seen: Seen) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.AiohttpSession:
        """Called at the start, and again when the token is refused: it is read anew."""
        return _session(access)

    async def event(event: kopf.RawEvent, **_: Any) -> None:
        seen(event["type"], dict(event["object"]))

    kopf.on.login(registry=registry)(login)
    for plural in PLURALS.values():
        kopf.on.event("weir.dev", "v1alpha1", plural, registry=registry)(event)
    return registry


def _session(access: Access) -> kopf.AiohttpSession:
    token = access.token_file.read_text().strip() if access.token_file else access.token
    headers = {"Authorization": f"Bearer {token}"} if token else None
    connector = aiohttp.TCPConnector(ssl=tls_context(access))
    return kopf.AiohttpSession(
        server=access.server, aiohttp_session=aiohttp.ClientSession(connector=connector, headers=headers)
    )


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = None  # this process's end is not kopf's to decide
    return settings
