"""The operator as a process, as the service account of the chart, against a test's API server."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import requests

from lab.kube import Cluster
from lab.lab import LabError
from lab.running import wait_for

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/weir"


@contextmanager
def installed_roles(cluster: Cluster, namespace: str, *values: str) -> Iterator[None]:
    """The chart's definitions and roles, for an installation in `namespace` with `values`; the definitions stay."""
    definitions = CHART / "files/crds"
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(definitions))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(definitions))
    helm = shutil.which("helm")
    assert helm
    argv = [helm, "template", "weir", str(CHART), "-n", namespace, "-s", "templates/rbac.yaml"]
    argv += [part for value in values for part in ("--set", value)]
    roles = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    cluster.kubectl("apply", "-f", "-", stdin=roles)
    try:
        yield
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=roles)


class RunningOperator:
    """From entry to exit one operator process."""

    def __init__(self, cluster: Cluster, namespace: str, *flags: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._flags = flags
        self.port = _free_port()
        self._log = cluster.directory / f"operator-{self.port}.log"

    def __enter__(self) -> Self:
        self.start()
        wait_for("the operator is ready", self._is_ready)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            if status := self.process.wait(20):
                raise LabError(f"the operator ended with {status}: {self.log()[-3000:]}")

    def start(self) -> None:
        """Start it, and do not wait."""
        kubeconfig = self._cluster.kubeconfig_for(self._namespace, "weir-operator")
        argv = [sys.executable, "-W", "error", "-m", "weir_operator", "operate"]
        argv += [
            f"--namespace={self._namespace}",
            f"--kubeconfig={kubeconfig}",
            f"--health-port={self.port}",
            *self._flags,
        ]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """What it said."""
        return self._log.read_text()

    def metrics(self) -> dict[str, float]:
        """Its metrics, by name and labels."""
        text = requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=10).text
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def writes(self) -> float:
        """Statuses written since it started."""
        return sum(value for name, value in self.metrics().items() if name.startswith("weir_status_writes_total"))

    def settle(self, seconds: float = 3.0) -> None:
        """Wait until it has written nothing for a time that is longer than its pace."""
        before, until = self.writes(), time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.2)
            if (now := self.writes()) != before:
                before, until = now, time.monotonic() + seconds

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise LabError(f"the operator ended with {self.process.returncode}: {self.log()[-3000:]}")
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).ok
        except requests.ConnectionError:
            return False


def bare_pod(name: str, *, captured: bool = False, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod that nobody runs; `captured` as injection would have made it."""
    container = {"name": "app", "image": "example.invalid/app"}
    sidecar = {"name": "weir-sidecar", "image": "example.invalid/weir", "restartPolicy": "Always"}
    marks = {"weir.dev/captured": "true"} if captured else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web", **marks, **(labels or {})}},
        "spec": {"containers": [container], "initContainers": [sidecar] if captured else [], **spec},
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
