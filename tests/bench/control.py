"""Measures one serving replica: admissions at a steady rate, and thousands of sidecars on its stream.

    PYTHONPATH=tests .venv/bin/python -m tests.bench.control [--sidecars 2000] [--rate 200] [--seconds 20]

It starts an API server of its own. The sidecars and the caller of the webhook are this process, on the same machine.
"""

import argparse
import asyncio
import asyncio.sslproto
import json
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from lab.kube import OwnCluster
from lab.operator import bare_pod, installed_roles
from lab.serving import Certificates, RunningServing
from weir_operator.kube.client import Client, Patch
from weir_operator.kube.kubeconfig import read_kubeconfig
from weir_sidecar.contract.stream import AUDIENCE, Hello

from . import procs
from .measure import say

_OUT = Path(__file__).parents[2] / "build/bench"
_NAMESPACE = "bench"
_PODS_PER_WORKLOAD = 10
_AT_ONCE = 32
_CALLERS = 16
"""Connections to the webhook; an API server keeps a few."""


class Sidecar(asyncio.Protocol):
    """A sidecar as the server sees it: it says hello, and notes when a config with certain text came."""

    def __init__(self, pod: str, token: str) -> None:
        self._head = (
            f"POST /v1/namespaces/{_NAMESPACE}/pods/{pod}/stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            f"Authorization: Bearer {token}\r\n\r\n"
        ).encode()
        self._came = bytearray()
        self._wanted = b""
        self._arrived: asyncio.Future[float] | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        hello = msgspec.json.encode(Hello("0", "", "")) + b"\n"
        transport.write(self._head + b"%x\r\n%s\r\n" % (len(hello), hello))

    def wait_for(self, text: bytes) -> asyncio.Future[float]:
        """When text comes: the time."""
        self._wanted = text
        self._arrived = asyncio.get_running_loop().create_future()
        self._look()
        return self._arrived

    def data_received(self, data: bytes) -> None:
        """Look for it."""
        self._came += data
        self._look()
        del self._came[: -len(self._wanted) or None]

    def _look(self) -> None:
        if self._arrived and not self._arrived.done() and self._wanted in self._came:
            self._arrived.set_result(time.perf_counter())

    def connection_lost(self, exc: Exception | None) -> None:
        """It is not to be."""
        self.lost = True


async def _each[T, R](what: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
    """Do something with each, some at once."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(item: T) -> R:
        async with slots:
            return await what(item)

    return await asyncio.gather(*map(one, items))


async def _tokens(client: Client, count: int) -> list[tuple[str, str]]:
    """Captured pods, and a token of each."""
    pods = f"/api/v1/namespaces/{_NAMESPACE}/pods"

    async def make(number: int) -> tuple[str, str]:
        name = f"app-{number}"
        pod = bare_pod(name, captured=True)
        owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": f"set-{number // _PODS_PER_WORKLOAD}"}
        pod["metadata"]["ownerReferences"] = [{**owner, "uid": "1", "controller": True}]
        made = await client.create(pods, pod)
        reference = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": made["metadata"]["uid"]}
        request = {"spec": {"audiences": [AUDIENCE], "expirationSeconds": 3600, "boundObjectRef": reference}}
        path = f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts/default/token"
        return name, (await client.create(path, request))["status"]["token"]

    return await _each(make, range(count))


def _spec(default: str) -> dict[str, Any]:
    """A policy of the size that people write."""
    hosts = [[f"a{number}.example", f"*.b{number}.example"] for number in range(20)]
    rules = [{"name": f"r{place}", "match": {"hosts": pair}, "action": "Deny"} for place, pair in enumerate(hosts)]
    return {"defaultAction": default, "rules": rules}


async def _streams(serving: RunningServing, client: Client, count: int) -> tuple[dict[str, float], list[Sidecar]]:
    pid = serving.process.pid
    tokens = await _tokens(client, count)
    context = ssl.create_default_context(cadata=serving.certificates.pem)
    loop = asyncio.get_running_loop()

    async def connect(pod: tuple[str, str]) -> Sidecar:
        _, sidecar = await loop.create_connection(
            lambda: Sidecar(*pod), "127.0.0.1", serving.stream_port, ssl=context, server_hostname="127.0.0.1"
        )
        await sidecar.wait_for(b'"defaultAction":"Intercept"')
        return sidecar

    before, cpu, started = procs.memory(pid), procs.cpu_us(pid), time.perf_counter()
    sidecars = await _each(connect, tokens)
    figures = {"connect_seconds": time.perf_counter() - started, "connect_cpu_ms": (procs.cpu_us(pid) - cpu) / 1000}
    await asyncio.sleep(5)
    after = procs.memory(pid)
    figures |= {"pss_before_mib": before.pss, "pss_mib": after.pss, "rss_mib": after.rss}
    cpu = procs.cpu_us(pid)
    await asyncio.sleep(20)
    figures["idle_cpu_percent"] = (procs.cpu_us(pid) - cpu) / 20e6 * 100
    figures["idle_kib_per_stream"] = (after.pss - before.pss) * 1024 / count
    for number, default in enumerate(("Deny", "Passthrough", "Intercept"), 1):
        waiting = [sidecar.wait_for(f'"defaultAction":"{default}"'.encode()) for sidecar in sidecars]
        cpu, started = procs.cpu_us(pid), time.perf_counter()
        path = f"/apis/weir.dev/v1alpha1/namespaces/{_NAMESPACE}/interceptionpolicies/all"
        await client.patch(path, {"spec": _spec(default)}, Patch.MERGE)
        arrived = sorted(at - started for at in await asyncio.gather(*waiting))
        figures[f"change_{number}_median_seconds"] = arrived[len(arrived) // 2]
        figures[f"change_{number}_last_seconds"] = arrived[-1]
        figures[f"change_{number}_cpu_ms"] = (procs.cpu_us(pid) - cpu) / 1000
    return figures, sidecars


def _review() -> bytes:
    """What the API server sends for a pod of a Deployment with two containers."""
    pod = bare_pod("", labels={f"example.com/label-{number}": "some value" for number in range(8)})
    variables = [{"name": f"VARIABLE_{number}", "value": "some value of some length"} for number in range(20)]
    pod["spec"]["containers"] = [{"name": name, "image": "example.invalid/x", "env": variables} for name in ("a", "b")]
    pod["metadata"] |= {"name": None, "generateName": "app-5d8c7-", "annotations": {"example.com/note": "x" * 500}}
    request = {"uid": "u", "operation": "CREATE", "namespace": _NAMESPACE, "object": pod}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


async def _admissions(serving: RunningServing, rate: int, seconds: int) -> dict[str, float]:
    """An open loop: requests go out when it is their time, however long others take."""
    pid, body, url = serving.process.pid, _review(), f"https://127.0.0.1:{serving.webhook_port}/mutate/pods"
    context = ssl.create_default_context(cadata=serving.certificates.pem)
    headers = {"Content-Type": "application/json"}
    took: list[float] = []
    connector = aiohttp.TCPConnector(ssl=context, limit=_CALLERS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(due: float) -> None:
            await asyncio.sleep(due - time.perf_counter())
            async with session.post(url, data=body, headers=headers) as response:
                answer = await response.read()
            took.append(time.perf_counter() - due)
            if b'"patch"' not in answer:
                raise RuntimeError(answer.decode())

        await asyncio.gather(*(one(time.perf_counter()) for _ in range(_CALLERS)))
        took.clear()
        begin, cpu = time.perf_counter() + 0.2, procs.cpu_us(pid)
        await asyncio.gather(*(one(begin + number / rate) for number in range(rate * seconds)))
    used = procs.cpu_us(pid) - cpu
    took.sort()
    count = len(took)
    return {
        "count": count,
        "median_ms": took[count // 2] * 1000,
        "p99_ms": took[count * 99 // 100] * 1000,
        "max_ms": took[-1] * 1000,
        "cpu_us_each": used / count,
    }


async def _measure(cluster: OwnCluster, serving: RunningServing, options: argparse.Namespace) -> dict[str, Any]:
    async with Client(read_kubeconfig(cluster.kubeconfig)) as client:
        policies = f"/apis/weir.dev/v1alpha1/namespaces/{_NAMESPACE}/interceptionpolicies"
        policy = {"apiVersion": "weir.dev/v1alpha1", "kind": "InterceptionPolicy", "metadata": {"name": "all"}}
        await client.create(policies, {**policy, "spec": _spec("Intercept")})
        await asyncio.sleep(1)
        figures: dict[str, Any] = {"admissions": await _admissions(serving, options.rate, options.seconds)}
        if options.sidecars:
            figures["streams"], sidecars = await _streams(serving, client, options.sidecars)
            figures["beside them"] = await _admissions(serving, options.rate, options.seconds)
            figures["streams"]["lost"] = sum(sidecar.lost for sidecar in sidecars)
            figures["metrics"] = {name: value for name, value in serving.metrics().items() if "bucket" not in name}
    return figures


def main() -> None:
    """Measure, print, and write build/bench/control.json."""
    parser = argparse.ArgumentParser(description="One serving replica of the control plane, measured.")
    parser.add_argument("--sidecars", type=int, default=2000)
    parser.add_argument("--rate", type=int, default=200, help="admissions a second")
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    if shutil.which("helm") is None:
        parser.error("no helm on PATH: the roles are the chart's")
    asyncio.sslproto.SSLProtocol.max_size = 16 << 10  # as the server does, or this process takes 256 KiB for each
    with OwnCluster() as cluster, cluster.namespace(prefix="weir-bench") as home, installed_roles(cluster, home):
        cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": _NAMESPACE}}).raise_for_status()
        accounts = f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts"
        cluster.request("POST", accounts, {"metadata": {"name": "default"}}).raise_for_status()
        with RunningServing(cluster, home, Certificates.new()) as serving:
            figures = asyncio.run(_measure(cluster, serving, options))
    for name, values in figures.items():
        for key, value in values.items():
            say(f"{name:12} {key:48} {value:12.2f}")
    _OUT.mkdir(parents=True, exist_ok=True)
    (_OUT / "control.json").write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
