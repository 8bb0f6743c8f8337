"""/healthz, /readyz and /metrics, on plain HTTP: for the kubelet and Prometheus."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from weir_operator.operate.metrics import Metrics


@asynccontextmanager
async def serving(metrics: Metrics, port: int) -> AsyncIterator[None]:
    """Answer while the body runs. Raises `OSError` where the port is taken.

    That it answers shows that the event loop runs; a task that fails ends the process. Ready: statuses were looked at
    at least once, so the API server was reached and all that is needed was listed.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if metrics.ran:
            return web.Response(text="ok\n")
        return web.Response(text="not yet: waiting for the API server, or for what is to be listed\n", status=503)

    async def text(_: web.Request) -> web.Response:
        return web.Response(text=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    application = web.Application()
    application.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", text)])
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        yield
    finally:
        await runner.cleanup()
