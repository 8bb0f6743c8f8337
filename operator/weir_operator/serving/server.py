"""The serving process: it starts, tells when it is ready, and ends so that nobody notices."""

import asyncio
import asyncio.sslproto
import logging
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from weir_operator.injection.inject import Settings
from weir_operator.kube.client import Client
from weir_operator.serving import review
from weir_operator.serving.admission import AdmissionServer
from weir_operator.serving.certificate import ServingCertificate, load, server_context
from weir_operator.serving.exception_writer import ExceptionWriter
from weir_operator.serving.knowledge import Knowledge
from weir_operator.serving.metrics import Metrics
from weir_operator.serving.sessions import Sessions
from weir_operator.serving.stream import PATH, StreamServer
from weir_operator.serving.summary import Replica, SummaryWriter
from weir_operator.serving.tokens import TokenReviewer
from weir_sidecar.contract.config import Setup, Stream

DRAIN_SECONDS = 12.0
"""From SIGTERM to the end: until nobody sends here any more, and each sidecar has been asked to go elsewhere."""
KEEPALIVE_SECONDS = 300.0
"""Longer than API servers keep an idle connection (90 s), so that they never send into one that is being closed."""
TLS_BUFFER = 16 << 10
"""Bytes that asyncio takes from TLS at a time, and sets aside for each connection; by itself it takes 256 KiB."""
BACKLOG = 4096

_log = logging.getLogger(__name__)


class Options(msgspec.Struct, frozen=True):
    """What the command line says. `replica` None: this is no pod, and writes no summary."""

    namespace: str
    settings: Settings
    stream_service: str
    serving_secret: str
    webhook_port: int
    stream_port: int
    health_port: int
    replica: Replica | None = None
    drain_seconds: float = DRAIN_SECONDS


class _File(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The file of --settings."""

    pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    init_resources: dict[str, Any] = {}
    sidecar_resources: dict[str, Any] = {}
    setup: Setup | msgspec.UnsetType = msgspec.UNSET


def read_settings(image: str, file: Path | None) -> Settings:
    """What the installation says about captured pods. Raises OSError, and `msgspec.MsgspecError` naming the field."""
    told = _File() if file is None else msgspec.json.decode(file.read_bytes(), type=_File)
    return Settings(image=image, **msgspec.structs.asdict(told))


class Serving:
    """All parts of the process, put together."""

    def __init__(self, client: Client, options: Options) -> None:
        self._options = options
        self._settings = options.settings
        self._tls = server_context()
        self._stopping = asyncio.Event()
        self.metrics = Metrics()
        self.knowledge = Knowledge(client, options.namespace, options.serving_secret)
        self._summary = SummaryWriter(client, options.replica) if options.replica else None
        changed = self._summary.changed if self._summary else _nothing
        self.sessions = Sessions(self.knowledge, lambda: self._settings, time.time, changed)
        reviewer = TokenReviewer(client, time.time, self.metrics)
        writer = ExceptionWriter(client, self.knowledge.exceptions, time.time, self.metrics)
        self._stream = StreamServer(
            knowledge=self.knowledge,
            sessions=self.sessions,
            reviewer=reviewer,
            writer=writer,
            metrics=self.metrics,
            clock=time.time,
        )
        self._admission = AdmissionServer(self.knowledge, lambda: self._settings, self.metrics)
        self.metrics.gauge("weir_streams_connected", "Sidecars that are connected.", lambda: len(self.sessions))
        self.knowledge.listener = self
        self.plans_changed = self.sessions.plans_changed
        self.exception_changed = self.sessions.exception_changed
        self.pod_changed = self.sessions.pod_changed

    def certificate_changed(self, certificate: ServingCertificate) -> None:
        """Use another certificate from now on. Raises `CertificateError`."""
        load(self._tls, certificate)
        server = f"{self._options.stream_service}.{self._options.namespace}.svc:443"
        stream = Stream(server, certificate.authorities.decode())
        if stream != self._settings.stream:
            self._settings = replace(self._settings, stream=stream)
            self.sessions.settings_changed()
        _log.info("a serving certificate is in use")

    @property
    def ready(self) -> bool:
        """Whether to send requests here."""
        return self.knowledge.complete and not self._stopping.is_set()

    def stop(self) -> None:
        """Begin to end."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or `stop`, and then for a while. Raises what ends a part that must not end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)
        asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER
        runners = await self._listen()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one) for one in self.knowledge.runs()]
                tasks.append(group.create_task(self.sessions.run()))
                if self._summary:
                    tasks.append(group.create_task(self._summary.run(self.sessions)))
                await self._stopping.wait()
                await self._drain()
                for task in tasks:
                    task.cancel()
        finally:
            for runner in runners:
                await runner.cleanup()

    async def _listen(self) -> list[web.AppRunner]:
        options = self._options
        health = web.Application()
        health.add_routes(
            [web.get("/healthz", self._healthz), web.get("/readyz", self._readyz), web.get("/metrics", self._metrics)]
        )
        webhook = web.Application(client_max_size=review.MAX_BODY)
        webhook.add_routes(self._admission.routes())
        stream = web.Application()
        stream.add_routes([web.post(PATH, self._stream.handle)])
        runners: list[web.AppRunner] = []
        for app, port, tls in (
            (health, options.health_port, None),
            (webhook, options.webhook_port, self._tls),
            (stream, options.stream_port, self._tls),
        ):
            runner = web.AppRunner(
                app, access_log=None, keepalive_timeout=KEEPALIVE_SECONDS, lingering_time=1.0, shutdown_timeout=2.0
            )
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, port=port, ssl_context=tls, backlog=BACKLOG).start()
        return runners

    async def _drain(self) -> None:
        """Go on serving while the rest of the cluster learns that this replica ends; send the sidecars elsewhere."""
        _log.info("ending")
        self._admission.drain()
        self._stream.drain(self._options.drain_seconds * 0.8)
        await asyncio.sleep(self._options.drain_seconds)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text="ready") if self.ready else web.Response(status=503, text="not ready")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})


def _nothing() -> None:
    """Nobody wants to know."""
