"""Weir installed in a cluster whose nodes run pods, and what to ask of it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.kube import Cluster, KubectlError, binary
from lab.running import wait_for
from lab.workloads import REGISTRY

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/weir"
SYSTEM = "weir-system"
WEIR = Path(sys.executable).with_name("weir")


class WeirCluster:
    """A cluster with Weir in it; see `installed`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.kubectl = cluster.kubectl

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change objects."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, kind: str, *args: str) -> Any:
        """Objects as JSON."""
        return json.loads(self.kubectl("get", kind, *args, "-o", "json"))

    def weir(self, *args: str, check: bool = True) -> str:
        """What the program prints when it is asked about this cluster."""
        program = WEIR.with_name("kubectl-weir")
        done = subprocess.run(
            [program, *args], capture_output=True, text=True, env=_environment(self.cluster), timeout=60, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl weir {' '.join(args)}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def helm(self, *args: str) -> str:
        """What helm prints."""
        done = subprocess.run(
            ["helm", *args], capture_output=True, text=True, env=_environment(self.cluster), timeout=300, check=False
        )
        if done.returncode:
            raise AssertionError(f"helm {' '.join(args)}: {done.stdout}{done.stderr}")
        return done.stdout

    def wait_rolled_out(self, namespace: str, *names: str, kind: str = "deployment", seconds: int = 120) -> None:
        """Until all pods of the Deployments, or another kind, are the newest and ready."""
        for name in names:
            wait = f"--timeout={seconds}s"
            self.kubectl("rollout", "status", f"{kind}/{name}", "-n", namespace, wait, seconds=seconds + 10)

    def pods(self, namespace: str, selector: str) -> list[Any]:
        """The pods with these labels."""
        return list(self.get("pods", "-n", namespace, "-l", selector)["items"])

    def wait_phase(self, namespace: str, pod: str, *phases: str, seconds: float = 90) -> None:
        """Until a pod is in one of the phases. Says why it is not."""

        def reached() -> bool:
            return self.get("pod", pod, "-n", namespace)["status"].get("phase") in phases

        try:
            wait_for(f"pod {pod} is {' or '.join(phases)}", reached, seconds)
        except Exception as error:
            described = self.kubectl("describe", "pod", pod, "-n", namespace, check=False)[-3000:]
            logs = self.kubectl("logs", pod, "-n", namespace, "--all-containers", "--tail=30", check=False)
            raise AssertionError(f"{error}\n{described}\n{logs}") from error

    def logs(self, namespace: str, pod: str, container: str = "app") -> str:
        """A container's log; empty when it has none yet."""
        try:
            return self.kubectl("logs", pod, "-n", namespace, "-c", container)
        except KubectlError:
            return ""

    def calls(self, namespace: str, pod: str) -> list[dict[str, Any]]:
        """What a caller told of its requests."""
        return [one for one in self.told(namespace, pod) if "at" in one]

    def told(self, namespace: str, pod: str, container: str = "app") -> list[dict[str, Any]]:
        """The lines of a container's log that are JSON: what one of our programs told, or the sidecar's records."""
        return [json.loads(line) for line in self.logs(namespace, pod, container).splitlines() if line.startswith("{")]

    @contextmanager
    def follow(self, namespace: str, pod: str, container: str = "app") -> Iterator[list[dict[str, Any]]]:
        """What one of our programs tells until its container has ended; whole when the context is left."""
        program = binary("kubectl")
        assert program
        argv = [program, "logs", pod, "-n", namespace, "-c", container, "--follow"]
        told: list[dict[str, Any]] = []
        others: list[str] = []

        def read(lines: Iterable[str]) -> None:
            for line in lines:
                told.append(json.loads(line)) if line.startswith("{") else others.append(line)

        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=_environment(self.cluster)) as process:
            output = process.stdout
            assert output
            reader = threading.Thread(target=read, args=(output,))
            reader.start()
            try:
                yield told
                reader.join(60)
            finally:
                process.kill()
        # Such as what a node says that has too few inotify instances to follow logs.
        assert others == [], f"the log of {pod}: {others}"

    def all_calls(self, namespace: str, pod: str) -> list[dict[str, Any]]:
        """What a caller with a COUNT told of its requests, when it has ended well and its log is whole."""
        self.wait_phase(namespace, pod, "Succeeded")
        wait_for(f"the log of {pod}", lambda: any("ended" in one for one in self.told(namespace, pod)))
        return self.calls(namespace, pod)

    def wait_calls(self, namespace: str, pod: str, fits: Callable[[dict[str, Any]], bool], seconds: float = 30) -> None:
        """Until the last request of a caller is one that `fits`."""

        def last_fits() -> bool:
            calls = self.calls(namespace, pod)
            return bool(calls) and fits(calls[-1])

        wait_for(f"a fitting call of {pod}", last_fits, seconds)


@contextmanager
def installed(cluster: Cluster, *values: str) -> Iterator[WeirCluster]:
    """Weir, installed with helm and uninstalled at the end. `values`: for `--set`."""
    weir = WeirCluster(cluster)
    sets = [part for value in (f"image.registry={REGISTRY}", *values) for part in ("--set", value)]
    wait = ("-n", SYSTEM, "--wait", "--timeout", "240s")
    try:
        weir.helm("install", "weir", str(CHART), "--create-namespace", *wait, *sets)
        yield weir
    finally:
        weir.helm("uninstall", "weir", "--ignore-not-found", *wait)


def within(seconds: float, what: str, holds: Callable[[], bool]) -> float:
    """Wait until something holds; how long that took, in seconds."""
    began = time.monotonic()
    wait_for(what, holds, seconds)
    return time.monotonic() - began


def _environment(cluster: Cluster) -> dict[str, str]:
    program = binary("kubectl")
    assert program
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "PATH": path}
