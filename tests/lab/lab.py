"""The lab: a machine, a net with origins beside it, and the means to run a command there with Weir and without.

Names: everything below `tls12.weir.test`, `tls13.weir.test` and `tls.weir.test` is a web origin for that version of TLS
(the last: both), `mtls.weir.test` one that requires a client's certificate, `raw.weir.test` the raw origins, and each
bad certificate has its own. Any first label will do, so that a test gives each client a host of its own.
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography.x509.oid import ExtendedKeyUsageOID

from lab.bad_certificates import CertificateCase, certificate_cases
from lab.content import make_content
from lab.network import DNS_ADDRESS, Network
from lab.pki import PKI, LeafShape
from lab.policy import Policy

ROOT = Path(__file__).parents[2]
WEIR = ROOT / ".venv" / "bin" / "weir"

RAW = "198.18.0.20"
RAW6 = "fd57:6569:72::20"
WEB = {"tls": "198.18.0.10", "tls12": "198.18.0.12", "tls13": "198.18.0.13", "mtls": "198.18.0.14"}
_WEB_VERSIONS = {"tls": None, "tls12": "1.2", "tls13": "1.3", "mtls": None}
_READY_TIMEOUT = 20


class LabError(RuntimeError):
    """The lab could not be made, or a command in it failed in a way no test expects."""


@dataclass(frozen=True)
class Run:
    """A command that ran to its end."""

    status: int
    stdout: str
    stderr: str
    records: list[dict[str, Any]]
    """The flow records, when it ran under Weir."""
    record_file: Path | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The request records, then."""


class Lab:
    """Owns the namespaces, the origins' process and a scratch directory, from entry to exit."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="wtl-"))
        self.directory.chmod(0o755)
        self.pki = PKI(self.directory)
        self.certificates: dict[str, CertificateCase] = {case.kind: case for case in certificate_cases(self.pki.root)}
        addresses = [*WEB.values(), RAW, RAW6, "fd57:6569:72::1", *(c.address for c in self.certificates.values())]
        self.network = Network(addresses)
        self._origins: subprocess.Popen[str] | None = None
        self._runs = 0

    def __enter__(self) -> Self:
        self.network.__enter__()
        try:
            self._start_origins()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._origins:
            assert self._origins.stdin
            assert self._origins.stdout
            self._origins.stdin.close()
            self._origins.wait(10)
            self._origins.stdout.close()
        self.network.__exit__(kind, error, trace)
        shutil.rmtree(self.directory)

    def run_direct(self, argv: list[str], timeout: float = 120) -> Run:
        """Run a command on the lab's machine, without Weir."""
        return self._run(argv, timeout)

    def run_weir(
        self,
        argv: list[str],
        policy: Policy,
        *,
        state: Path | None = None,
        timeout: float = 120,
        options: tuple[str, ...] = (),
    ) -> Run:
        """Run a command under `weir run` on the lab's machine."""
        command, record = self._weir_command(argv, policy, state, options)
        return self._run(command, timeout, record)

    @contextlib.contextmanager
    def running_weir(self, argv: list[str], policy: Policy, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """A `weir run` to look at while it runs; its command ends when its standard input does.

        `/proc/PID/root` of the process is the machine as `weir run` sees it, with the pod's run directory.
        """
        command, _ = self._weir_command(argv, policy, None, ("--name", name))
        environment = self._environment()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(self.network.inside(command), env=environment, **pipes) as process:
            try:
                yield process
            finally:
                process.communicate(timeout=30)

    def _weir_command(
        self, argv: list[str], policy: Policy, state: Path | None, options: tuple[str, ...]
    ) -> tuple[list[str], Path]:
        self._runs += 1
        policy_file = self.directory / f"policy-{self._runs}.yaml"
        policy_file.write_text(policy.to_yaml())
        record = self.directory / f"records-{self._runs}.jsonl"
        more = ["--state", str(state)] if state else []
        head = [str(WEIR), "run", "-f", str(policy_file), "--record", str(record), *more, *options, "--"]
        return [*head, *argv], record

    @staticmethod
    def _environment() -> dict[str, str]:
        # Nothing of this machine's own settings for trust, proxies and mirrors reaches a client.
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {**kept, "PYTHONPATH": str(ROOT / "tests")}

    def _run(self, argv: list[str], timeout: float, record: Path | None = None) -> Run:
        done = subprocess.run(
            self.network.inside(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self._environment(),
            check=False,
        )
        if done.returncode == 125:
            raise LabError(f"weir run could not start: {done.stderr.strip()}")
        lines = record.read_text().splitlines() if record and record.exists() else []
        told = [json.loads(line) for line in lines]
        flows = [one for one in told if "record" not in one]
        requests = [one for one in told if one.get("record") == "request"]
        return Run(done.returncode, done.stdout, done.stderr, flows, record, requests)

    @property
    def client_certificate(self) -> Path:
        """Certificate and key of a client that `mtls.weir.test` accepts."""
        path = self.directory / "client.pem"
        if not path.exists():
            shape = LeafShape((), common_name="a client of the lab", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
            self.pki.root.leaf(shape).write(path)
        return path

    def hellos(self, address: str) -> list[bytes]:
        """The ClientHellos, as raw records, that the web origin at `address` has been sent so far."""
        lines = [json.loads(line) for line in (self.directory / "hellos.jsonl").read_text().splitlines()]
        return [base64.b64decode(line["hello"]) for line in lines if line["address"] == address]

    def _start_origins(self) -> None:
        make_content(self.directory / "www")
        (self.directory / "hellos.jsonl").touch()
        spec = self.directory / "origins.json"
        spec.write_text(json.dumps(self._spec()))
        argv = self.network.in_net([sys.executable, "-m", "lab.origins", str(spec)])
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        self._origins = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=self.directory
        )
        assert self._origins.stdout
        started = time.monotonic()
        if self._origins.stdout.readline() != "ready\n" or time.monotonic() - started > _READY_TIMEOUT:
            raise LabError("the origins did not start; their error is above")

    def _spec(self) -> dict[str, Any]:
        names = {f"*.{label}.weir.test": [address] for label, address in WEB.items()}
        web = []
        for label, address in WEB.items():
            issued = self.pki.root.leaf(LeafShape((f"*.{label}.weir.test",)))
            file = issued.write(self.directory / f"{label}.pem")
            client_ca = str(self.pki.ca_file) if label == "mtls" else None
            version = _WEB_VERSIONS[label]
            web.append(_web(address, file, version, client_ca))
        for case in self.certificates.values():
            file = case.issued.write(self.directory / f"cert-{case.kind}.pem")
            web.append(_web(case.address, file, weak=case.kind == "weak-key"))
            names[f"{case.kind}.cert.weir.test"] = [case.address]
        raw = self.pki.root.leaf(LeafShape(("raw.weir.test", "*.raw.weir.test", RAW, RAW6))).write(
            self.directory / "raw.pem"
        )
        names["raw.weir.test"] = names["*.raw.weir.test"] = [RAW, RAW6]
        return {
            "root": str(self.directory / "www"),
            "log": str(self.directory / "hellos.jsonl"),
            "dns": DNS_ADDRESS,
            "names": names,
            "web": web,
            "raw": {"addresses": [RAW, RAW6], "certificate": str(raw)},
        }


def _web(
    address: str, certificate: Path, version: str | None = None, client_ca: str | None = None, *, weak: bool = False
) -> dict[str, Any]:
    return {
        "address": address,
        "certificate": str(certificate),
        "version": version,
        "client_ca": client_ca,
        "weak": weak,
    }
