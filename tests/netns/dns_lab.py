"""A pod with capture and the DNS part of the sidecar in it, and a resolver beyond, in two namespaces."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from netns.capture_lab import acting_as, inside, sh
from weir_sidecar.contract.config import FailureMode, SidecarConfig, encode
from weir_sidecar.netsetup import capture

POD = {4: "10.79.0.1", 6: "fd79::1"}
NET = {4: "10.79.0.2", 6: "fd79::2"}
RESOLVER = {4: "198.51.100.53", 6: "2001:db8:53::53"}
NOBODY_THERE = {4: "198.51.100.99", 6: "2001:db8:53::99"}
PROXY = SidecarConfig().identity.uid
HERE = Path(__file__).parent
_labs = itertools.count()


class DNSLab:
    """Made on entry with `config` (which is made to fail closed: no heartbeat here), removed on exit."""

    def __init__(self, config: SidecarConfig, directory: Path) -> None:
        self.config = config
        tag = f"{os.getpid():x}-{next(_labs)}"
        self.pod, self.net = f"wdns-p{tag}", f"wdns-n{tag}"
        self._config_file = directory / "config.json"
        self._records_file = directory / "records.jsonl"
        self._processes: list[subprocess.Popen] = []
        assert config.failure_mode is FailureMode.CLOSED

    def __enter__(self) -> Self:
        try:
            self._network()
            self._config_file.write_bytes(encode(self.config))
            self._start(self.net, "dns_origin.py", *RESOLVER.values())
            with inside(self.pod):
                capture.apply(self.config)
            self.sidecar = self._start(self.pod, "dns_sidecar.py", str(self._config_file))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        for process in self._processes:
            process.terminate()
            process.wait()
        for namespace in (self.pod, self.net):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)

    def _network(self) -> None:
        for namespace in (self.pod, self.net):
            sh("ip", "netns", "add", namespace)
            sh("ip", "-n", namespace, "link", "set", "lo", "up")
        sh("ip", "-n", self.pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self.net)
        for namespace, addresses, gateway in ((self.pod, POD, NET), (self.net, NET, POD)):
            sh("ip", "-n", namespace, "link", "set", "eth0", "up")
            sh("ip", "-n", namespace, "address", "add", f"{addresses[4]}/24", "dev", "eth0")
            sh("ip", "-n", namespace, "address", "add", f"{addresses[6]}/64", "dev", "eth0", "nodad")
            for version in (4, 6):
                sh("ip", "-n", namespace, f"-{version}", "route", "add", "default", "via", gateway[version])
        for address in (*RESOLVER.values(), *NOBODY_THERE.values()):
            nodad = ("nodad",) if ":" in address else ()
            sh("ip", "-n", self.net, "address", "add", address, "dev", "lo", *nodad)

    def _start(self, namespace: str, script: str, *args: str) -> subprocess.Popen:
        output = self._records_file.open("wb") if script == "dns_sidecar.py" else subprocess.PIPE
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, str(HERE / script), *args],
            stdout=output,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._processes.append(process)
        if process.stdout is None:
            output.close()
            wait_for(lambda: self._records_file.read_bytes().startswith(b"ready"))
        else:
            assert process.stdout.readline() == b"ready\n"
            process.stdout.close()
        return process

    def in_pod(self, function):
        """Run in the pod, captured."""
        with inside(self.pod):
            return function()

    def direct(self, function):
        """Run in the pod as the proxy's user, which is not captured."""
        with inside(self.pod), acting_as(PROXY):
            return function()

    def records(self) -> list[dict]:
        """All records so far."""
        lines = self._records_file.read_text().splitlines()[1:]
        return [json.loads(line) for line in lines if line.endswith("}")]

    def wait_for_records(self, count: int, **fields) -> list[dict]:
        """The records with these fields, as soon as there are `count`; fails when there are more."""
        found: list[dict] = []

        def enough() -> bool:
            found[:] = [r for r in self.records() if all(r[key] == value for key, value in fields.items())]
            return len(found) >= count

        wait_for(enough)
        assert len(found) == count
        return found


def wait_for(condition, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)
