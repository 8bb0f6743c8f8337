"""The node agent as a process, the plugin that asks it, and an API server that knows some pods."""

import http.client
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

from lab.pki import Authority, LeafShape
from lab.running import wait_for
from lab.shim import Shim
from weir_sidecar.contract.config import SidecarConfig, encode

PREVIOUS = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "eth0", "sandbox": "/run/netns/x"}],
    "ips": [{"address": "10.77.0.2/24", "interface": 0, "gateway": "10.77.0.1"}],
    "dns": {},
}
IMAGE = "registry.example:5000/weir/sidecar"
SPEC: dict[str, Any] = {
    "initContainers": [
        {
            "name": name,
            "image": f"{IMAGE}:1",
            "command": ["python", "-m", module],
            "securityContext": {"runAsUser": 15801},
            "volumeMounts": [{"name": "weir-pod", "mountPath": "/run/weir/pod"}],
        }
        for name, module in (("weir-init", "weir_sidecar.podsetup"), ("weir-sidecar", "weir_sidecar"))
    ],
    "containers": [{"name": "app", "image": "example/app:1"}],
    "volumes": [{"name": "weir-pod", "emptyDir": {"medium": "Memory"}}],
}
"""As the webhook makes a pod, as far as the agent looks."""
WORKERS = 4
_PATIENCE = 20.0


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Pods:
    """An API server with GET of pods, over TLS. `pods` by "NAMESPACE/NAME"."""

    def __init__(self, directory: Path) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.authorized: list[str | None] = []
        authority = Authority.root("cluster")
        self.account = directory / "account"
        self.account.mkdir()
        (self.account / "ca.crt").write_bytes(authority.issued.pem)
        (self.account / "token").write_text("the.agents.token\n")
        certificate = authority.leaf(LeafShape(("127.0.0.1",))).write(directory / "api.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, name: str, config: SidecarConfig | None, uid: str = "u-1") -> None:
        """A pod; captured, if there is a config."""
        metadata: dict[str, Any] = {"uid": uid, "labels": {"app": "web"}, "annotations": {}}
        if config is not None:
            metadata["labels"]["weir.dev/captured"] = "true"
            metadata["annotations"]["weir.dev/config"] = encode(config).decode()
        self.pods[name] = {"metadata": metadata, "spec": json.loads(json.dumps(SPEC))}

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        known, authorized = self.pods, self.authorized

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                authorized.append(self.headers["Authorization"])
                parts = self.path.split("/")
                pod = known.get(f"{parts[4]}/{parts[6]}") if len(parts) == 7 else None
                body = json.dumps(pod or {"kind": "Status"}).encode()
                self.send_response(404 if pod is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        return Handler


class Node:
    """One node: its agent, its plugin, and the API server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.shim = Shim(directory)
        self.api = Pods(directory)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.api.close()

    def start(self, *more: str) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.api.port),
        }
        program = [sys.executable, "-I", "-m", "weir_sidecar.node", "--dir", str(self.directory)]
        own = ["--at-once", str(WORKERS), "--health-port", str(self.port)]
        options = [*own, "--account-dir", str(self.api.account), "--image", f"{IMAGE}@sha256:00", *more]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([*program, *options], env=environment, stderr=log)
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            children = self.children()
            self._process.send_signal(number)
            self._process.wait(_PATIENCE)
            self._process = None
            # In a container they end with it.
            wait_for("the agent's children are gone", lambda: not [one for one in children if _runs(one)])

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def ask(  # noqa: PLR0917 - as many as there are in a request
        self,
        command: str,
        netns: str = "",
        container: str = "c1",
        pod: str = "shop/web-1",
        uid: str = "u-1",
        stdin: bytes | None = None,
        **conf: Any,
    ) -> subprocess.CompletedProcess[bytes]:
        """The plugin as a runtime runs it; `conf` is more of the network configuration, and `stdin` all of it."""
        whole = {"cniVersion": "1.0.0", "name": "net", "type": "weir-cni", "prevResult": PREVIOUS, **conf}
        text = json.dumps({k: v for k, v in whole.items() if v is not None}).encode() if stdin is None else stdin
        return self.shim(text, self.environment(command, netns, container, pod, uid))

    def environment(
        self, command: str, netns: str, container: str, pod: str = "shop/web-1", uid: str = "u-1"
    ) -> dict[str, str]:
        """As a runtime sets it for the plugin."""
        namespace, _, name = pod.partition("/")
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}"
        return {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.directory),
            "CNI_ARGS": arguments,
        }

    def page(self, path: str) -> tuple[int, str]:
        """What the agent's own port answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def children(self) -> list[int]:
        """The agent's workers, and what answers `page`."""
        assert self._process is not None
        found = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return sorted(map(int, found.split()))

    def records(self) -> set[str]:
        return {path.stem for path in (self.directory / "pods").iterdir()}

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.shim.agent)) == 0
