"""Weir installed in a cluster whose nodes run pods, an HTTPS origin of our own in it, and applications that call it.

Everything runs from Weir's own two images, which the nodes must have: the application and the origin are Python programs
in the control image.
"""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.kube import Cluster, KubectlError, binary
from lab.pki import Authority, LeafShape
from lab.running import wait_for
from weir_sidecar import __version__

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/weir"
SYSTEM = "weir-system"
WEIR = Path(sys.executable).with_name("weir")
IMAGE = f"docker.io/weir/control:{__version__}"

# Serves TLS on 8443, HTTP on 8080: GET / says hello, /slow?N bytes one a second.
_ORIGIN = """
import asyncio, ssl
from aiohttp import web
async def hello(request): return web.Response(text="hello from origin\\n")
async def slow(request):
    answer = web.StreamResponse(); await answer.prepare(request)
    for _ in range(int(request.query_string or "5")):
        await answer.write(b"x"); await asyncio.sleep(1)
    return answer
async def main():
    app = web.Application(); app.router.add_get("/", hello); app.router.add_get("/slow", slow)
    runner = web.AppRunner(app, access_log=None); await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain("/certs/tls.crt", "/certs/tls.key")
    await web.TCPSite(runner, "0.0.0.0", 8443, ssl_context=context, backlog=1024).start()
    await web.TCPSite(runner, "0.0.0.0", 8080).start()
    await asyncio.Event().wait()
asyncio.run(main())
"""

# One HTTPS request each PAUSE seconds, each on a connection of its own; one JSON line for each, with the time it began.
_CALLER = """
import json, os, ssl, sys, time, http.client
host, roots, pause, count = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
context = ssl.create_default_context(cafile=roots) if roots != "-" else ssl.create_default_context()
context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # many clusters' own CAs have no key usage
number = 0
while number < count or not count:
    began, number = time.time(), number + 1
    try:
        connection = http.client.HTTPSConnection(host, 443, timeout=20, context=context)
        connection.connect()
        issuer = dict(part[0] for part in connection.sock.getpeercert()["issuer"]).get("organizationName", "")
        connection.request("GET", "/"); body = connection.getresponse().read().decode().strip(); connection.close()
        told = {"ok": body == "hello from origin", "weir": issuer == "Weir"}
    except Exception as error:
        told = {"ok": False, "error": type(error).__name__ + ": " + str(error)[:160]}
    print(json.dumps({"at": began, "ms": round((time.time() - began) * 1000, 1), **told}), flush=True)
    time.sleep(pause)
"""


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

    def wait_rolled_out(self, namespace: str, *deployments: str, seconds: int = 120) -> None:
        """Until all pods of the deployments are the newest and ready."""
        for name in deployments:
            self.kubectl("rollout", "status", f"deployment/{name}", "-n", namespace, f"--timeout={seconds}s")

    def pods(self, namespace: str, selector: str) -> list[Any]:
        """The pods with these labels."""
        return list(self.get("pods", "-n", namespace, "-l", selector)["items"])

    def wait_phase(self, namespace: str, pod: str, *phases: str, seconds: float = 60) -> None:
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
        return [json.loads(line) for line in self.logs(namespace, pod).splitlines() if line.startswith("{")]

    def wait_calls(self, namespace: str, pod: str, fits: Callable[[dict[str, Any]], bool], seconds: float = 30) -> None:
        """Until the last request of a caller is one that `fits`."""

        def last_fits() -> bool:
            calls = self.calls(namespace, pod)
            return bool(calls) and fits(calls[-1])

        wait_for(f"a fitting call of {pod}", last_fits, seconds)


def caller(
    name: str, host: str, *, roots: str = "-", pause: float = 0.1, count: int = 0, **changes: Any
) -> dict[str, Any]:
    """A pod that calls `host` again and again. `roots`: a file to verify it with; `-`: what the system has."""
    container = {
        "name": "app",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", _CALLER, host, roots, str(pause), str(count)],
        "volumeMounts": [{"name": "origin-ca", "mountPath": "/origin"}],
        **changes.pop("container", {}),
    }
    spec = {
        "containers": [container],
        "volumes": [{"name": "origin-ca", "configMap": {"name": "origin-ca", "optional": True}}],
        "restartPolicy": "Never" if count else "Always",
        "terminationGracePeriodSeconds": 2,
        **changes,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def deployment(name: str, pod: Mapping[str, Any], replicas: int = 1) -> dict[str, Any]:
    """A Deployment of pods like `pod`."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {**pod["spec"], "restartPolicy": "Always"}},
        },
    }


def policy(name: str, namespace: str, app: str | None = None, **spec: Any) -> dict[str, Any]:
    """An InterceptionPolicy for the pods of an application; None: for all of the namespace."""
    selector = {} if app is None else {"matchLabels": {"app": app}}
    return {
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "InterceptionPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": selector, **spec},
    }


class Origin:
    """The HTTPS server that applications call, with a CA that nobody knows who was not told."""

    def __init__(self, weir: WeirCluster, namespace: str) -> None:
        self.host = f"origin.{namespace}.svc.cluster.local"
        self._weir = weir
        self._namespace = namespace
        self._authority = Authority.root("Origin CA")
        self.ca_pem = self._authority.issued.pem.decode()

    def start(self) -> None:
        """Until it serves."""
        leaf = self._authority.leaf(
            LeafShape(names=(self.host, f"origin.{self._namespace}.svc", f"origin.{self._namespace}"))
        )
        pem = leaf.write(self._weir.cluster.directory / "origin.pem").read_bytes()
        secret = {"tls.crt": pem, "tls.key": pem}
        container = {
            "name": "app",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "-c", _ORIGIN],
            "volumeMounts": [{"name": "certs", "mountPath": "/certs"}],
            "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        }
        spec = {"containers": [container], "volumes": [{"name": "certs", "secret": {"secretName": "origin"}}]}
        ports = [{"name": "https", "port": 443, "targetPort": 8443}, {"name": "http", "port": 80, "targetPort": 8080}]
        where = {"name": "origin", "namespace": self._namespace}
        made = deployment("origin", {"spec": spec})
        self._weir.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": where,
                "data": {k: _base64(v) for k, v in secret.items()},
            },
            {**made, "metadata": where},
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": where,
                "spec": {"selector": {"app": "origin"}, "ports": ports},
            },
        )
        self._weir.wait_rolled_out(self._namespace, "origin")

    def introduce(self, namespace: str) -> None:
        """Tell a namespace's pods (ConfigMap origin-ca) and Weir (a TrustPolicy) of the origin's CA."""
        self._weir.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "origin-ca", "namespace": namespace},
                "data": {"ca.crt": self.ca_pem},
            },
            {
                "apiVersion": "weir.dev/v1alpha1",
                "kind": "TrustPolicy",
                "metadata": {"name": "origin", "namespace": namespace},
                "spec": {"upstream": {"roots": [{"pem": self.ca_pem}]}},
            },
        )


@contextmanager
def installed(cluster: Cluster, *values: str) -> Iterator[WeirCluster]:
    """Weir, installed with helm and uninstalled at the end. `values`: for `--set`."""
    weir = WeirCluster(cluster)
    sets = [part for value in values for part in ("--set", value)]
    weir.helm("install", "weir", str(CHART), "-n", SYSTEM, "--create-namespace", "--wait", "--timeout", "120s", *sets)
    try:
        yield weir
    finally:
        weir.helm("uninstall", "weir", "-n", SYSTEM, "--wait", "--timeout", "120s")


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


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
