"""What the kubelet says of a sidecar's memory and CPU, idle and busy. Noted, not judged."""

import json
import time
from datetime import datetime
from typing import Any, NamedTuple

import pytest

from lab.place import Place
from lab.weir_cluster import within
from lab.workloads import container, pod

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(600)]

RATE, SECONDS = 200, 30
SETTLED = 60
MIB = 1 << 20


class Usage(NamedTuple):
    """Of a container, at a time in seconds."""

    time: float
    cpu_seconds: float
    working_set: int
    rss: int


def usage(here: Place, name: str) -> Usage:
    """Of the sidecar: the kubelet's summary API."""
    path = f"/api/v1/nodes/{here.pod(name)['spec']['nodeName']}/proxy/stats/summary"
    (found,) = [one for one in json.loads(here.weir.kubectl("get", "--raw", path))["pods"] if is_ours(one, here, name)]
    made = next(one for one in found["containers"] if one["name"] == "weir-sidecar")
    cpu, memory = made["cpu"], made["memory"]
    at = datetime.fromisoformat(cpu["time"]).timestamp()
    return Usage(at, cpu["usageCoreNanoSeconds"] / 1e9, memory["workingSetBytes"], memory["rssBytes"])


def is_ours(found: dict[str, Any], here: Place, name: str) -> bool:
    reference = found["podRef"]
    return (reference["name"], reference["namespace"]) == (name, here.namespace)


def metric(here: Place, name: str, which: str) -> float:
    """Of the sidecar: the kubelet's resource metrics."""
    path = f"/api/v1/nodes/{here.pod(name)['spec']['nodeName']}/proxy/metrics/resource"
    wanted = (f'{which}{{container="weir-sidecar"', f'namespace="{here.namespace}"', f'pod="{name}"')
    lines = here.weir.kubectl("get", "--raw", path).splitlines()
    (line,) = [one for one in lines if all(part in one for part in wanted)]
    return float(line.rpartition("} ")[2].split()[0])


def newer(here: Place, name: str, than: float) -> Usage:
    """The first that the kubelet measured after a time."""
    found = []

    def measured() -> bool:
        found.append(usage(here, name))
        return found[-1].time > than

    within(60, "a newer measurement of the kubelet's", measured)
    return found[-1]


def told(what: str, before: Usage, after: Usage) -> str:
    cores = (after.cpu_seconds - before.cpu_seconds) / (after.time - before.time)
    return (
        f"{what}: {after.working_set / MIB:.1f} MiB working set, {after.rss / MIB:.1f} MiB RSS,"
        f" {cores * 1000:.1f} millicores over {after.time - before.time:.0f} s"
    )


def test_memory_and_cpu_of_an_idle_and_of_a_busy_sidecar(here: Place, names, note):
    family = next(iter(names))
    here.policy("figures", "figures")
    here.start(here.fit(pod("figures", container("busy", names[family]["web"]["host"], RATE, SECONDS))))
    here.weir.wait_phase(here.namespace, "figures", "Running")
    began = time.time()
    time.sleep(SETTLED / 2)
    first = newer(here, "figures", began + SETTLED / 2)
    time.sleep(max(0, began + SETTLED - time.time()))
    idle = newer(here, "figures", max(first.time, began + SETTLED))
    resource = metric(here, "figures", "container_memory_working_set_bytes")

    here.exec("figures", "touch", "/tmp/go")
    going = time.time()
    start = newer(here, "figures", going + 3)
    time.sleep(max(0, going + SECONDS - 10 - time.time()))
    busy = newer(here, "figures", max(start.time, going + SECONDS - 12))
    busy_resource = metric(here, "figures", "container_memory_working_set_bytes")
    within(SECONDS, "all requests", lambda: here.weir.told(here.namespace, "figures"))
    (made,) = here.weir.told(here.namespace, "figures")
    assert made["failed"] == 0
    assert made["ok"] == RATE * SECONDS
    note.append(told(f"kubelet, {here.mode}, idle sidecar after {SETTLED} s", first, idle))
    note.append(
        told(f"kubelet, {here.mode}, sidecar at {made['ok'] / made['seconds']:.0f} HTTPS requests/s", start, busy)
    )
    note.append(
        f"kubelet, {here.mode}, metrics/resource: working set {resource / MIB:.1f} MiB idle, {busy_resource / MIB:.1f} busy"
    )
