"""The serving process, as the service account of the chart, against a test's API server; and sidecars for it."""

import base64
import contextlib
import http.client
import json
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import msgspec
import requests
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from lab.kube import Cluster, OwnCluster
from lab.lab import LabError
from lab.pki import Authority, LeafShape
from lab.running import wait_for
from weir_sidecar.contract.stream import AUDIENCE, Down, Exceptions, Hello, NewConfig, Up

IMAGE = "example.invalid/weir/sidecar:1"
SECRET = "weir-serving"
_decoder: msgspec.json.Decoder[Down] = msgspec.json.Decoder(Down)


@dataclass(frozen=True)
class Certificates:
    """A CA and what it signs for a serving process on loopback; `others` are CAs told beside it."""

    authority: Authority
    others: tuple[Authority, ...] = ()

    @classmethod
    def new(cls, *others: Authority) -> "Certificates":
        return cls(Authority.root("Weir serving"), others)

    @property
    def pem(self) -> str:
        return "".join(one.issued.pem.decode() for one in (self.authority, *self.others))

    def secret(self) -> dict[str, Any]:
        leaf = self.authority.leaf(LeafShape(names=("127.0.0.1", "localhost")))
        key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        parts = {"tls.crt": leaf.pem, "tls.key": key, "ca.crt": self.pem.encode()}
        data = {name: base64.b64encode(part).decode() for name, part in parts.items()}
        metadata = {"name": SECRET}
        return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": data}


def free_port() -> int:
    """A TCP port of loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def expired(token: str, cluster: OwnCluster) -> str:
    """The same token, as it would be had it been made two hours ago for one; signed with the cluster's own key."""
    header, payload, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    now = int(time.time())
    claims |= {"iat": now - 7200, "nbf": now - 7200, "exp": now - 3600}
    signed = f"{header}.{_base64(json.dumps(claims).encode())}"
    key = load_pem_private_key((cluster.directory / "accounts.key").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(signed.encode(), ECDSA(SHA256())))
    return f"{signed}.{_base64(r.to_bytes(32) + s.to_bytes(32))}"  # RFC 7518, section 3.4


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class RunningServing:
    """From entry to exit one serving process for an installation in `namespace`, whose Secret it is given."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        certificates: Certificates,
        *flags: str,
        replica: tuple[str, str] | None = None,
        ports: tuple[int, int] | None = None,
    ) -> None:
        """`replica`: the name and uid of the pod that it is to be; `ports`: webhook and stream."""
        self.cluster = cluster
        self.namespace = namespace
        self.certificates = certificates
        self.webhook_port, self.stream_port = ports or (free_port(), free_port())
        self.health_port = free_port()
        self._flags = flags
        self._replica = replica
        self._log = cluster.directory / f"serving-{self.health_port}.log"

    def __enter__(self) -> Self:
        self.put_certificates(self.certificates)
        self.start()
        wait_for("the serving process is ready", self.is_ready)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def put_certificates(self, certificates: Certificates) -> None:
        """Create or replace the Secret."""
        self.certificates = certificates
        path = f"/api/v1/namespaces/{self.namespace}/secrets"
        secret = certificates.secret()
        answer = self.cluster.request("PUT", f"{path}/{SECRET}", secret)
        if answer.status_code == 404:
            answer = self.cluster.request("POST", path, secret)
        answer.raise_for_status()

    def start(self) -> None:
        """Start it, and do not wait."""
        kubeconfig = self.cluster.kubeconfig_for(self.namespace, "weir-serving")
        argv = [sys.executable, "-W", "error", "-m", "weir_operator", "serve", f"--namespace={self.namespace}"]
        argv += [f"--image={IMAGE}", f"--kubeconfig={kubeconfig}", f"--webhook-port={self.webhook_port}"]
        argv += [f"--stream-port={self.stream_port}", f"--health-port={self.health_port}", *self._flags]
        name, uid = self._replica or ("", "")
        environment = {"PATH": "/usr/bin:/bin", "POD_NAME": name, "POD_UID": uid}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)

    def log(self) -> str:
        """What it said."""
        return self._log.read_text()

    def told(self, **facts: Any) -> list[dict[str, Any]]:
        """The lines of its log with these facts."""
        lines = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return [line for line in lines if facts.items() <= line.items()]

    def metrics(self) -> dict[str, float]:
        """Its metrics, by name and labels."""
        text = requests.get(f"http://127.0.0.1:{self.health_port}/metrics", timeout=10).text
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def is_ready(self) -> bool:
        """Whether it says so; raises if it has ended."""
        if self.process.poll() is not None:
            raise LabError(f"the serving process ended with {self.process.returncode}: {self.log()[-3000:]}")
        try:
            return requests.get(f"http://127.0.0.1:{self.health_port}/readyz", timeout=5).ok
        except requests.ConnectionError:
            return False

    def review(self, path: str, body: bytes) -> requests.Response:
        """One request to the webhook, as the API server would send it."""
        verify = self.cluster.directory / f"serving-{self.webhook_port}.pem"
        verify.write_text(self.certificates.pem)
        url = f"https://127.0.0.1:{self.webhook_port}{path}"
        return requests.post(
            url, data=body, verify=str(verify), timeout=10, headers={"Content-Type": "application/json"}
        )

    def connect(self, namespace: str, pod: str, token: str | None, **hello: Any) -> "Sidecar":
        """A sidecar that says hello, or `first` instead, or is refused."""
        return Sidecar(self, namespace, pod, token, **hello)

    def token(self, namespace: str, pod: str, **options: Any) -> str:
        """A token as the pod's kubelet would get it."""
        return self.cluster.token(namespace, "default", pod=pod, **{"audience": AUDIENCE, **options})


class Sidecar:
    """One config stream, seen from the pod. A thread reads what comes."""

    def __init__(
        self,
        serving: RunningServing,
        namespace: str,
        pod: str,
        token: str | None,
        *,
        revision: str = "",
        kernel_revision: str | None = None,
        first: bytes | None = None,
    ) -> None:
        context = ssl.create_default_context(cadata=serving.certificates.pem)
        self._connection = http.client.HTTPSConnection("127.0.0.1", serving.stream_port, timeout=30, context=context)
        self._connection.putrequest("POST", f"/v1/namespaces/{namespace}/pods/{pod}/stream")
        self._connection.putheader("Transfer-Encoding", "chunked")
        if token is not None:
            self._connection.putheader("Authorization", f"Bearer {token}")
        self._connection.endheaders()
        self._socket = self._connection.sock
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.ended = threading.Event()
        self._came: dict[type[Down], queue.Queue[Any]] = {NewConfig: queue.Queue(), Exceptions: queue.Queue()}
        if self.status == 200:
            hello = Hello("0", revision, revision if kernel_revision is None else kernel_revision)
            self.tell_raw(msgspec.json.encode(hello) + b"\n" if first is None else first)
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, as a pod that is killed does."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self.status == 200:
            self._reader.join(10)
        self._socket.close()
        self._response.close()
        self._connection.close()

    def error(self) -> str:
        """Why it was refused."""
        error: str = json.loads(self._response.read())["error"]
        return error

    def tell(self, message: Up) -> None:
        """Say something."""
        self.tell_raw(msgspec.json.encode(message) + b"\n")

    def tell_raw(self, data: bytes) -> None:
        """Send bytes as one chunk."""
        self._socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def _read(self) -> None:
        try:
            while line := self._response.readline():
                if line.strip():
                    message = _decoder.decode(line)
                    self._came[type(message)].put(message)
        except (OSError, http.client.HTTPException, ValueError):
            pass
        finally:
            self.ended.set()

    def config(self, when: Callable[[NewConfig], bool] = lambda _: True, patience: float = 10.0) -> NewConfig:
        """The next config for which `when` holds."""
        return self._next(NewConfig, when, patience)

    def exceptions(self, when: Callable[[Exceptions], bool] = lambda _: True, patience: float = 10.0) -> Exceptions:
        """The next exceptions for which `when` holds."""
        return self._next(Exceptions, when, patience)

    def _next[D: Down](self, kind: type[D], when: Callable[[D], bool], patience: float) -> D:
        deadline = time.monotonic() + patience
        while True:
            try:
                message: D = self._came[kind].get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                raise LabError(f"waited {patience} s in vain for a {kind.__name__}") from None
            if when(message):
                return message

    def hears_nothing(self, seconds: float) -> bool:
        """Whether nothing has come and nothing comes for so long."""
        time.sleep(seconds)
        return all(came.empty() for came in self._came.values())
