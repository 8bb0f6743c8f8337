"""A sidecar as in a pod of Kubernetes: a container's root with four capabilities, the pod's directories, and its rules.

Beside it, outside the pod: an origin that speaks TLS and echoes, and the control plane's end of the config stream.
"""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec

from lab.control_plane import ControlPlane
from lab.pki import Authority, LeafShape
from netns.capture_lab import FAMILY, FAR, POD, Pod, inside
from weir_sidecar.contract.config import Ports, SidecarConfig, Stream, Trust, Upstream, encode

CAPABILITIES = "net_raw,net_bind_service,setuid,setgid"
ORIGIN_PORT, STREAM_PORT, PROBE_PORT = 8443, 8444, 15804
TOKEN_GROUP = 4242
PATIENCE = 20.0


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait for something that must come true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.002)
    return found


class Origin:
    """Speaks TLS and echoes, each connection in a thread."""

    def __init__(self, listener: socket.socket, certificate: Path) -> None:
        self._listener = listener
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._echo, args=(connection,)))
            self._threads[-1].start()

    def _echo(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with connection:
            try:
                with self._context.wrap_socket(connection, server_side=True) as tls:
                    while data := tls.recv(65536):
                        tls.sendall(data)
            except OSError:
                return


class PodSidecar:
    """The pod, its rules, its sidecar, and what is outside. `config` is what the pod is started with."""

    limits: tuple[str, ...] = (
        "setpriv",
        f"--bounding-set=-all,{','.join('+' + c for c in CAPABILITIES.split(','))}",
        "--inh-caps=-all",
    )
    """What takes away what a container does not have."""
    program: tuple[str, ...] = ("-m", "weir_sidecar")

    def __init__(self, pod: Pod, **config: Any) -> None:
        self.pod = pod
        self.directory = Path(tempfile.mkdtemp(prefix="wsc-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.origin_ca, self.control_ca = Authority.root("origin"), Authority.root("control plane")
        roots = self.directory / "roots.pem"
        roots.write_bytes(self.origin_ca.issued.pem)
        self.config = SidecarConfig(
            workload="shop/Deployment/web",
            revision="first",
            trust=Trust(upstream=Upstream(roots_files=(str(roots),), system_roots=False)),
            ports=Ports(probe=PROBE_PORT),
            stream=Stream(f"{FAR[4]}:{STREAM_PORT}", self.control_ca.issued.pem.decode()),
        )
        self.config = msgspec.structs.replace(self.config, **config)
        self.records: list[dict[str, Any]] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        leaf = self.origin_ca.leaf(LeafShape(("origin.test",))).write(self.directory / "origin.pem")
        with inside(self.pod.far):
            self._origin = Origin(socket.create_server((FAR[4], ORIGIN_PORT)), leaf)
        self.control = self.control_plane().__enter__()
        self.make_directories()
        self.load_rules()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.control.__exit__()
        self._origin.close()
        self.pod.remove()
        shutil.rmtree(self.directory)

    def load_rules(self) -> None:
        """What the init container does in the kernel."""
        self.pod.apply(self.config)

    def control_plane(self, name: str = FAR[4], authority: Authority | None = None) -> ControlPlane:
        """Another server of the stream at the same address."""
        with inside(self.pod.far):
            listener = socket.create_server((FAR[4], STREAM_PORT))
        return ControlPlane(self.directory, listener, authority or self.control_ca, name)

    def make_directories(self) -> None:
        """What podsetup leaves, anew, and what the kubelet mounts."""
        state = self.directory / "pod"
        shutil.rmtree(state, ignore_errors=True)
        (state / "run").mkdir(parents=True)
        state.chmod(0o777)
        identity = self.config.identity
        (state / "run" / "config.json").write_bytes(encode(self.config))
        for path in (state / "run", state / "run" / "config.json"):
            os.chown(path, identity.uid, identity.gid)
        (state / "run").chmod(0o700)
        (self.directory / "started.json").write_bytes(encode(self.config))
        token = self.directory / "token"
        token.write_text("a.service.account.token")
        token.chmod(0o640)
        os.chown(token, 0, TOKEN_GROUP)

    def start(self) -> None:
        run = self.directory / "pod" / "run"
        program = [sys.executable, "-I", *self.program, "--run-dir", str(run), "--state-dir", str(run)]
        options = [
            "--record",
            "-",
            "--started-config",
            str(self.directory / "started.json"),
            "--group",
            str(TOKEN_GROUP),
        ]
        more = ["--token-file", str(self.directory / "token")]
        argv = ["ip", "netns", "exec", self.pod.pod, *self.limits, *program, *options, *more]
        environment = {"PATH": os.environ["PATH"], "WEIR_POD_NAMESPACE": "shop", "WEIR_POD_NAME": "web-1"}
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, env=environment)
        self._reader = threading.Thread(target=self._read, args=(self._process,))
        self._reader.start()
        try:
            eventually(lambda: self._process and (self.probe("/readyz") == 200 or self._process.poll() is not None))
            assert self._process.poll() is None
        except AssertionError as error:
            raise AssertionError(self.log) from error

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, as the kubelet does, or worse."""
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait(PATIENCE)
        self._reader.join()
        assert self._process.stdout
        self._process.stdout.close()
        self._process = None

    @property
    def log(self) -> str:
        """What it said on standard error."""
        return (self.directory / "log").read_text()

    def trust_file(self) -> str:
        """The trust cache as it was saved last."""
        path = self.directory / "pod" / "run" / "trust.json"
        return path.read_text() if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        for line in process.stdout:
            self.records.append(msgspec.json.decode(line))

    def get(self, path: str, version: int = 4) -> bytes:
        """What somebody outside the pod is answered at the probe's port. OSError."""
        with inside(self.pod.far):
            sock = socket.socket(FAMILY[version])
        with sock:
            sock.settimeout(2)
            sock.connect((POD[version], PROBE_PORT))
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {POD[4]}:{PROBE_PORT}\r\n\r\n".encode())
            with sock.makefile("rb") as answer:
                return answer.read()

    def probe(self, path: str, version: int = 4) -> int | None:
        """The status of the answer; None: there is none."""
        try:
            answer = self.get(path, version)
        except OSError:
            return None
        return int(answer.split()[1]) if answer else None

    def metric(self, name: str) -> float | None:
        """A sample of the metrics."""
        samples = (line.rpartition(" ") for line in self.get("/metrics").decode().splitlines())
        return next((float(value) for sample, _, value in samples if sample == name), None)

    def connect(self, *, distrust: bool = False) -> ssl.SSLSocket:
        """A connection of the application to the origin; it trusts the pod's CA too, or does not. OSError."""
        context = ssl.create_default_context(cadata=self.origin_ca.issued.pem.decode())
        if not distrust:
            context.load_verify_locations(cadata=(self.directory / "pod" / "run" / "ca.crt").read_text())
        sock = self.pod.connect(4, ORIGIN_PORT)
        try:
            return context.wrap_socket(sock, server_hostname="origin.test")
        except OSError:
            sock.close()
            raise

    def issuer(self, *, distrust: bool = False) -> str:
        """Who issued the certificate that the application gets; or the error."""
        try:
            with self.connect(distrust=distrust) as tls:
                tls.sendall(b"x")
                assert tls.recv(1) == b"x"
                issuer = dict(name[0] for name in tls.getpeercert()["issuer"])
                return "origin" if issuer["commonName"] == "origin" else "weir"
        except OSError as error:
            return type(error).__name__
