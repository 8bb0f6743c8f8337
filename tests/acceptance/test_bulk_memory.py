"""What bodies in flight take of a real sidecar's memory, while their readers stall: a bound for each, whatever its size."""

import signal
import time
from pathlib import Path

import pytest

from lab.lab import Lab
from lab.policy import Policy
from lab.running import RunningWeir

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

MIB = 1 << 20
SIZE = 32 * MIB
PER_FLOW = 1 * MIB
WAYS = {
    "HTTP/1.1": "--http1.1 https://bulk.tls.weir.test",
    "HTTP/1.1 in the clear": "--http1.1 http://bulk.tls.weir.test",
    "HTTP/2": "--http2 https://bulk.tls.weir.test",
}
STALL = 0.4


def script(body: Path) -> str:
    """Runs each line that it is told of; all six transfers of a line's size at a time."""
    lines = []
    for at, way in enumerate(WAYS.values()):
        lines.append(f"curl -sS -o /dev/null {way}/bytes/$size & p{at}=$!")
        lines.append(f"curl -sS -o /dev/null -T {body}.$size {way}/digest & q{at}=$!")
    pids = " ".join(f"$p{at} $q{at}" for at in range(len(WAYS)))
    stall = f"sleep {STALL}; kill -STOP {pids}; sleep {STALL}; kill -CONT {pids}"
    return f"echo ready; while read size; do {' '.join(lines)} {stall}; wait {pids}; echo done; done"


def status(pid: int, field: str) -> int:
    """Bytes, of proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def test_a_body_in_flight_takes_a_bounded_part_of_memory(weir_lab, lab: Lab) -> None:
    body = lab.directory / "body"
    for size in (MIB, SIZE):
        with Path(f"{body}.{size}").open("wb") as file:
            file.truncate(size)
    rule = {"name": "web", "match": {"hosts": ["*.weir.test"]}, "action": "Intercept"}
    policy = Policy(root=lab.pki.ca_file, interception={"rules": [rule]})
    with RunningWeir(lab, "bulk-memory", ["bash", "-c", script(body)], policy) as weir:
        assert weir.line() == "ready"
        weir.say(str(MIB))
        assert weir.line() == "done"
        pid = weir.proxy()
        before = status(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from now on
        weir.say(str(SIZE))
        time.sleep(2.5 * STALL)
        assert lab._origins is not None
        lab._origins.send_signal(signal.SIGSTOP)
        time.sleep(STALL)
        lab._origins.send_signal(signal.SIGCONT)
        assert weir.line() == "done"
        grown = status(pid, "VmHWM") - before
    told = [(one["request_bytes"], one["response_bytes"]) for one in weir.requests]
    assert sorted(max(sizes) for sizes in told) == [MIB] * 6 + [SIZE] * 6, weir.log
    assert grown <= 2 * len(WAYS) * PER_FLOW, f"{grown / MIB:.2f} MiB for {2 * len(WAYS)} bodies"
