"""A Kubernetes API for tests: one of our own (etcd and kube-apiserver, no controllers, no nodes), or one that is given.

What a cluster of our own lacks, it makes up for: a namespace gets its default service account, and one that is removed
is emptied and finalised, as controllers would do.
"""

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import requests
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from lab.lab import LabError
from lab.pki import Authority, Issued, LeafShape
from lab.running import wait_for

ASSETS = Path(os.environ.get("KUBEBUILDER_ASSETS", "/usr/local/kubebuilder/bin"))
ADMIN = "weir-test-admin"
_CLIENT = LeafShape(common_name=ADMIN, organization="system:masters", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
_ETCD_SOCKET = "etcd:0"
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class KubectlError(LabError):
    """kubectl failed; the text is what it said."""


def binary(name: str) -> Path | None:
    """A program of Kubernetes: among the assets of envtest (`KUBEBUILDER_ASSETS`), else on PATH."""
    among = ASSETS / name
    found = str(among) if among.exists() else shutil.which(name)
    return Path(found) if found else None


def missing() -> list[str]:
    """The programs that a cluster of our own needs and this machine lacks."""
    return [name for name in ("etcd", "kube-apiserver", "kubectl") if binary(name) is None]


class Cluster:
    """An API server, reached with a kubeconfig that has client certificates or a token in it."""

    def __init__(self, kubeconfig: Path, directory: Path) -> None:
        """`directory` is for scratch files; it outlives the object."""
        self.kubeconfig = kubeconfig
        self.directory = directory
        view = json.loads(self.kubectl("config", "view", "--raw", "--flatten", "--minify", "-o", "json"))
        self._cluster, self._user = view["clusters"][0]["cluster"], view["users"][0]["user"]
        self.server: str = self._cluster["server"]
        self.ca_pem = base64.b64decode(self._cluster["certificate-authority-data"]).decode()
        self.session = self._session()

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self._scratch("ca.crt", self._cluster["certificate-authority-data"]))
        if "token" in self._user:
            session.headers["Authorization"] = f"Bearer {self._user['token']}"
        elif "client-key-data" in self._user:
            certificate = self._scratch("client.crt", self._user["client-certificate-data"])
            session.cert = (str(certificate), str(self._scratch("client.key", self._user["client-key-data"])))
        else:
            raise LabError(f"{self.kubeconfig}: found neither token nor client-key-data for its current user")
        return session

    def _scratch(self, name: str, encoded: str) -> Path:
        path = self.directory / f"session-{name}"
        path.touch(0o600)
        path.write_bytes(base64.b64decode(encoded))
        return path

    def run_kubectl(
        self, *args: str, stdin: str | None = None, seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """kubectl, whatever its end, which it has to come to in some seconds."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.directory / "cache")}
        program = binary("kubectl")
        assert program
        return subprocess.run(
            [program, *args], input=stdin, capture_output=True, text=True, check=False, env=environment, timeout=seconds
        )

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True, seconds: float = 60) -> str:
        """What kubectl prints. Raises `KubectlError` if it fails; without `check`, its complaints follow its output."""
        done = self.run_kubectl(*args, stdin=stdin, seconds=seconds)
        if not check:
            return done.stdout + done.stderr
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(args)}: {done.stderr}")
        return done.stdout

    def request(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        """One request to the API server, whatever the answer; `body` is sent as JSON."""
        return self.session.request(method, self.server + path, json=body, timeout=30, **options)

    def token(
        self,
        namespace: str,
        service_account: str,
        *,
        audience: str | None = None,
        pod: str | None = None,
        seconds: int = 600,
    ) -> str:
        """A token of a service account (TokenRequest): for an audience, bound to a pod, if these are given.

        The API server gives no token for less than 600 seconds.
        """
        options = [f"--duration={seconds}s"]
        options += [f"--audience={audience}"] if audience else []
        options += ["--bound-object-kind=Pod", f"--bound-object-name={pod}"] if pod else []
        return self.kubectl("create", "token", service_account, "-n", namespace, *options).strip()

    def kubeconfig_for(self, namespace: str, service_account: str, *, seconds: int = 3600) -> Path:
        """A kubeconfig with which a program is that service account. For a person, use kubectl's --as instead."""
        user = {"token": self.token(namespace, service_account, seconds=seconds)}
        path = self.directory / f"{namespace}-{service_account}.kubeconfig"
        return _write_kubeconfig(path, self.server, self.ca_pem, user, namespace)

    @contextmanager
    def namespace(self, labels: Mapping[str, str] | None = None, prefix: str = "weir-test") -> Iterator[str]:
        """A namespace with its default service account; at the end it is gone, with all that was in it."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        answer = self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": dict(labels or {})}})
        answer.raise_for_status()
        try:
            self._await_service_account(name)
            yield name
        finally:
            self._remove_namespace(name)

    def _await_service_account(self, namespace: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        wait_for("the default service account", lambda: self.request("GET", path).ok)

    def _remove_namespace(self, name: str) -> None:
        self.request("DELETE", f"/api/v1/namespaces/{name}").raise_for_status()


class OwnCluster(Cluster):
    """From entry to exit an etcd and a kube-apiserver on loopback, with RBAC and the default admission plugins.

    There are no controllers: what a Deployment asks for is not made, and an owner's end does not end what it owns.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="weir-cluster-"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # Bound and never listening: the port stays ours while the API server is stopped.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self._port: int = self._reserved.getsockname()[1]

    def __enter__(self) -> Self:
        try:
            self._make_pki()
            self._start_etcd()
            super().__init__(self.directory / "admin.kubeconfig", self.directory)
            self.start_api_server()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("kube-apiserver", "etcd"):
            if name in self._processes:
                self._end(name)
        self._reserved.close()
        shutil.rmtree(self.directory)

    def start_api_server(self) -> None:
        """Start it, and wait until it is ready."""
        self._start("kube-apiserver", *self._api_server_flags())
        wait_for("the API server is ready", self._is_ready)
        self._await_system_namespaces()

    def stop_api_server(self) -> None:
        """Kill it, as a crash would: connections are reset, and new ones refused. What it stored stays."""
        self._end("kube-apiserver")

    def restart_api_server(self, down_seconds: float = 0) -> None:
        """Kill it, and start it anew after a time."""
        self.stop_api_server()
        time.sleep(down_seconds)
        self.start_api_server()

    def log(self, name: str = "kube-apiserver") -> str:
        """What a process said."""
        return (self.directory / f"{name}.log").read_text()

    def _is_ready(self) -> bool:
        process = self._processes["kube-apiserver"]
        if process.poll() is not None:
            raise LabError(f"kube-apiserver ended with {process.returncode}: {self.log()[-2000:]}")
        try:
            return self.request("GET", "/readyz").ok
        except requests.ConnectionError:
            return False

    def _await_system_namespaces(self) -> None:
        wait_for("the namespace kube-system", lambda: self.request("GET", "/api/v1/namespaces/kube-system").ok)
        self._ensure_service_account("default")
        self._ensure_service_account("kube-system")

    def _make_pki(self) -> None:
        authority = Authority.root("Weir test cluster")
        self._write("ca.crt", authority.issued.pem)
        serving = ("127.0.0.1", "localhost", "kubernetes.default.svc")
        authority.leaf(LeafShape(names=serving)).write(self._write("serving.pem", b""))
        accounts = authority.leaf(LeafShape()).key
        self._write("accounts.key", accounts.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public = accounts.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self._write("accounts.pub", public)
        admin = authority.leaf(_CLIENT)
        ca_pem = authority.issued.pem.decode()
        path = self.directory / "admin.kubeconfig"
        _write_kubeconfig(path, f"https://127.0.0.1:{self._port}", ca_pem, _client_data(admin), "default")

    def _write(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.touch(0o600)
        path.write_bytes(data)
        return path

    def _start_etcd(self) -> None:
        # etcd wants HOST:PORT, and makes a socket of that name in its working directory.
        clients, peers = f"unix://{_ETCD_SOCKET}", "unix://peers:0"
        self._start(
            "etcd",
            f"--data-dir={self.directory}/etcd",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
            "--log-level=error",
        )

    def _api_server_flags(self) -> list[str]:
        here = self.directory
        return [
            f"--etcd-servers=unix://{here}/{_ETCD_SOCKET}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--permit-port-sharing=true",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--client-ca-file={here}/ca.crt",
            f"--tls-cert-file={here}/serving.pem",
            f"--tls-private-key-file={here}/serving.pem",
            f"--service-account-key-file={here}/accounts.pub",
            f"--service-account-signing-key-file={here}/accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            "--profiling=false",
        ]

    def _start(self, name: str, *flags: str) -> None:
        program = binary(name)
        if program is None:
            raise LabError(f"{name} is missing: put it in {ASSETS} (KUBEBUILDER_ASSETS)")
        # A test run that is killed takes its cluster with it.
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", program, *flags],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.directory,
            )

    def _end(self, name: str) -> None:
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def _ensure_service_account(self, namespace: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        if not self.request("GET", f"{path}/default").ok:
            self.request("POST", path, {"metadata": {"name": "default"}}).raise_for_status()

    def _await_service_account(self, namespace: str) -> None:
        self._ensure_service_account(namespace)

    def _remove_namespace(self, name: str) -> None:
        """Empty it, and finalise it: what the namespace controller would do."""
        super()._remove_namespace(name)
        at_once = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
        for path in self._collections(name):
            self.request("DELETE", path, at_once).raise_for_status()
        namespace = {"metadata": {"name": name}, "spec": {"finalizers": []}}
        body = {"apiVersion": "v1", "kind": "Namespace", **namespace}
        self.request("PUT", f"/api/v1/namespaces/{name}/finalize", body).raise_for_status()

    def _collections(self, namespace: str) -> Iterator[str]:
        """The paths of all that a namespace may hold and that can be deleted at once."""
        for root in ("/api", "/apis"):
            answer = self.request("GET", root, headers={"Accept": _DISCOVERY})
            answer.raise_for_status()
            for group in answer.json()["items"]:
                group_name = group["metadata"].get("name")
                prefix = f"{root}/{group_name}" if group_name else root
                version = group["versions"][0]
                for resource in version.get("resources", ()):
                    if resource["scope"] == "Namespaced" and "deletecollection" in resource["verbs"]:
                        yield f"{prefix}/{version['version']}/namespaces/{namespace}/{resource['resource']}"


def _client_data(issued: Issued) -> dict[str, str]:
    key = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "client-certificate-data": base64.b64encode(issued.pem).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }


def _write_kubeconfig(path: Path, server: str, ca_pem: str, user: Mapping[str, str], namespace: str) -> Path:
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca_pem.encode()).decode()}
    context = {"cluster": "test", "user": "test", "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": dict(user)}],
        "contexts": [{"name": "test", "context": context}],
    }
    path.touch(0o600)
    path.write_text(yaml.safe_dump(config))
    return path
