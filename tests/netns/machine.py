"""A "machine" of its own for tests of `weir run`: namespaces for network and mounts, with /run and resolv.conf its own.

On it, and beside it in a second network namespace that it routes to, servers tell who asked: TCP on port 80 answers
with the client's address; UDP on port 53 answers every query with ORIGIN.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
ORIGIN, ORIGIN6 = "203.0.113.1", "2001:db8:77::1"
BEYOND = "198.51.100.2"

_MAKE = f"""
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /etc/netns
mount -t tmpfs tmpfs /etc/netns
ip link set lo up
ip address add {ORIGIN}/32 dev lo
ip address add {ORIGIN6}/128 dev lo nodad
unshare --net sleep 1000 & beyond=$!
sleep 0.2
ip link add up0 type veth peer name down0 netns $beyond
ip address add 198.51.100.1/24 dev up0
ip link set up0 addrgenmode none up
nsenter --target $beyond --net sh -c 'ip link set lo up; ip address add {BEYOND}/24 dev down0; ip link set down0 up'
echo "nameserver $1" > /run/resolv.conf
mount --bind /run/resolv.conf /etc/resolv.conf
{sys.executable} {Path(__file__).with_name("machine_servers.py")} tcp {ORIGIN} {ORIGIN6} &
nsenter --target $beyond --net {sys.executable} {Path(__file__).with_name("machine_servers.py")} tcp {BEYOND} &
{sys.executable} {Path(__file__).with_name("machine_servers.py")} dns $1 {ORIGIN} &
sleep 0.5
echo ready
exec sleep 1000
"""


class Machine:
    """Made on entry; everything on it ends on exit."""

    def __init__(self, nameserver: str = ORIGIN) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="wrm-", dir="/tmp"))
        self.directory.chmod(0o755)
        self._nameserver = nameserver

    def __enter__(self) -> Self:
        argv = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _MAKE, "sh", self._nameserver]
        self._holder = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
        assert self._holder.stdout
        assert self._holder.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_) -> None:
        os.killpg(self._holder.pid, signal.SIGKILL)
        self._holder.wait()
        assert self._holder.stdout
        self._holder.stdout.close()
        subprocess.run(["rm", "-r", str(self.directory)], check=True)

    def inside(self, *argv: str) -> list[str]:
        return ["nsenter", f"--target={self._holder.pid}", "--net", "--mount", f"--wdns={ROOT}", *argv]

    def call(self, *argv: str, **more) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.inside(*argv), capture_output=True, text=True, timeout=60, check=False, **more)

    def weir(self, *argv: str) -> list[str]:
        """The command line of `weir run` with the stub for a sidecar."""
        return self.inside(sys.executable, str(Path(__file__).with_name("run_with_stub.py")), *argv)

    def run(self, *argv: str, **more) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.weir(*argv), capture_output=True, text=True, timeout=60, check=False, **more)

    def start(self, *argv: str, **more) -> subprocess.Popen[str]:
        """Start a run whose command prints a line first; returns when it has."""
        process = subprocess.Popen(self.weir(*argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
        assert process.stdout
        assert process.stdout.readline(), process.stderr and process.stderr.read()
        return process

    def traces(self) -> dict[str, str]:
        """All that a run could leave, to be compared with before."""
        commands = {
            "links": "ip -br link | cut -d' ' -f1; ip netns list",
            "rules": "nft list ruleset; ip rule; ip route show table all; ip -6 route show table all",
            "mounts": "cut -d' ' -f5 /proc/self/mountinfo | grep -E '^/run$|^/run/netns$|weir-|^/run/weir|^/etc'",
            "files": "find /run -not -name .exclusive -not -path /run/weir; ls -d /etc/netns/weir-* 2>/dev/null",
            "forwarding": "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding",
        }
        return {name: self.call("sh", "-c", command).stdout for name, command in commands.items()}


def eventually(condition, seconds: float = 20.0):
    """Wait for a condition that must come true; what it said."""
    deadline = time.monotonic() + seconds
    while not (said := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
    return said
