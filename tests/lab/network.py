"""The lab's network: a "machine" on which commands and `weir run` run, and beside it the net where the origins are.

Two network namespaces, joined by one veth pair, and nothing of the real machine: the machine's namespace has a default
route into the net and a nameserver there, so a pod that `weir run` makes on it reaches the origins as it would anywhere.
"""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

DNS_ADDRESS = "198.18.0.53"
GATEWAY = "198.18.0.1"
MACHINE = "198.18.0.254"
MACHINE6 = "fd57:6569:72::fe"
_ETC = Path("/etc/netns")
UNREACHABLE = "198.18.66.6"
BLACKHOLE = "198.18.0.66"
"""An address whose packets are lost without a word."""


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True)


def _remove_namespace(name: str) -> None:
    listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
    for pid in listed.stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(_ETC / name, ignore_errors=True)


def _remove_leftovers() -> None:
    """What a killed run left: the names end in the pid of the run that made them."""
    for file in Path("/run/netns").glob("wtl-[mn]*"):
        if not Path(f"/proc/{int(file.name[5:], 16)}").exists():
            _remove_namespace(file.name)


class Network:
    """Makes the two namespaces on entry and removes them, with every process in them, on exit."""

    def __init__(self, addresses: list[str]) -> None:
        tag = f"{os.getpid():x}"
        self.machine = f"wtl-m{tag}"
        self.net = f"wtl-n{tag}"
        self._addresses = addresses

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._remove()

    def _make(self) -> None:
        _remove_leftovers()
        for namespace in (self.machine, self.net):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", self.machine, "link", "add", "uplink", "type", "veth", "peer", "name", "net0", "netns", self.net)
        _ip("-n", self.machine, "link", "set", "uplink", "up")
        _ip("-n", self.net, "link", "set", "net0", "up")
        _ip("-n", self.machine, "address", "add", f"{MACHINE}/24", "dev", "uplink")
        _ip("-n", self.machine, "address", "add", f"{MACHINE6}/64", "dev", "uplink", "nodad")
        for address in {GATEWAY, DNS_ADDRESS, *self._addresses}:
            length = ("/64", "nodad") if ":" in address else ("/24",)
            _ip("-n", self.net, "address", "add", address + length[0], "dev", "net0", *length[1:])
        _ip("-n", self.machine, "route", "add", "default", "via", GATEWAY)
        _ip("-n", self.machine, "-6", "route", "add", "default", "via", "fd57:6569:72::1")
        _ip("-n", self.machine, "route", "add", "unreachable", UNREACHABLE)
        _ip("-n", self.net, "address", "add", f"{BLACKHOLE}/24", "dev", "net0")
        rules = f"add table ip lab; add chain ip lab in {{ type filter hook input priority 0; }}; add rule ip lab in ip daddr {BLACKHOLE} drop"
        subprocess.run(["ip", "netns", "exec", self.net, "nft", rules], check=True)
        # `ip netns exec` mounts this over /etc/resolv.conf.
        etc = _ETC / self.machine
        etc.mkdir(parents=True, exist_ok=True)  # a killed run with this pid may have left one, on another boot
        (etc / "resolv.conf").write_text(f"nameserver {DNS_ADDRESS}\n")

    def _remove(self) -> None:
        _remove_namespace(self.machine)
        _remove_namespace(self.net)

    def inside(self, argv: list[str]) -> list[str]:
        """The command line that runs `argv` on the lab's machine."""
        return ["ip", "netns", "exec", self.machine, *argv]

    def in_net(self, argv: list[str]) -> list[str]:
        """The command line that runs `argv` where the origins are."""
        return ["ip", "netns", "exec", self.net, *argv]

    def leftovers(self) -> dict[str, object]:
        """What is on the lab's machine besides the lab itself: links, rules, and policy routing."""

        def of(*argv: str) -> str:
            return subprocess.run(self.inside(list(argv)), capture_output=True, text=True, check=True).stdout

        links = [
            link["ifname"] for link in json.loads(of("ip", "-j", "link")) if link["ifname"] not in ("lo", "uplink")
        ]
        return {
            "links": links,
            "nft": of("nft", "list", "tables").split("\n")[:-1],
            "rules": of("ip", "rule").count("\n"),
        }
