"""The pod's network namespace and its link to the host."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from weir_cli.pod import addresses
from weir_cli.pod.addresses import Link
from weir_cli.pod.names import Pod
from weir_cli.pod.tools import call

# A new namespace starts with the kernel's defaults; programs expect the machine's.
_COPIED_SYSCTLS = (
    "ipv4/ping_group_range",
    "ipv4/ip_unprivileged_port_start",
    "ipv4/ip_local_port_range",
    "ipv4/tcp_keepalive_time",
    "ipv4/tcp_keepalive_intvl",
    "ipv4/tcp_keepalive_probes",
)


def create(pod: Pod) -> Link:
    """Make the namespace, connect it to the host, and say with which addresses."""
    link = addresses.choose(pod.name, _routed4(), _routed6())
    ipv6 = host_has_ipv6()
    settings = {name: _sysctl(name).read_text() for name in _COPIED_SYSCTLS if _sysctl(name).exists()}
    call(["ip", "netns", "add", pod.netns])
    call(["ip", "-batch", "-"], _host_batch(pod, link, ipv6=ipv6))
    call(["ip", "-netns", pod.netns, "-batch", "-"], _pod_batch(link, ipv6=ipv6))
    with entered(pod.netns_path):
        for name, value in settings.items():
            _sysctl(name).write_text(value)
    return link


def host_has_ipv6() -> bool:
    """Whether this namespace gives new interfaces IPv6."""
    switch = _sysctl("ipv6/conf/default/disable_ipv6")
    return switch.exists() and switch.read_text().strip() == "0"


@contextmanager
def entered(path: Path) -> Iterator[None]:
    """Be in the network namespace at `path` for a while. Needs a single thread, CAP_SYS_ADMIN (setns(2))."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    away = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.setns(away, os.CLONE_NEWNET)
        yield
    finally:
        os.setns(home, os.CLONE_NEWNET)
        os.close(away)
        os.close(home)


def processes(path: Path) -> list[int]:
    """The processes that live in the network namespace at `path`, this one apart."""
    try:
        wanted = path.stat().st_ino
    except FileNotFoundError:
        return []
    return [pid for pid in _all_processes() if pid != os.getpid() and _namespace_of(pid) == wanted]


def _all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _namespace_of(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return None  # It ended meanwhile, or is a zombie.


def _host_batch(pod: Pod, link: Link, *, ipv6: bool) -> str:
    lines = [
        f"link add {pod.link} type veth peer name eth0 netns {pod.netns}",
        f"address add {link.host4}/30 dev {pod.link}",
        *([f"address add {link.host6}/64 dev {pod.link} nodad"] if ipv6 else []),
        f"link set {pod.link} up",
    ]
    return "\n".join(lines) + "\n"


def _pod_batch(link: Link, *, ipv6: bool) -> str:
    lines = [
        "link set lo up",
        f"address add {link.pod4}/30 dev eth0",
        *([f"address add {link.pod6}/64 dev eth0 nodad"] if ipv6 else []),
        "link set eth0 up",
        f"route add default via {link.host4}",
        *([f"route add ::/0 via {link.host6}"] if ipv6 else []),
    ]
    return "\n".join(lines) + "\n"


def _routed4() -> list[IPv4Network]:
    return [n for n in map(ip_network, _destinations("-4")) if isinstance(n, IPv4Network)]


def _routed6() -> list[IPv6Network]:
    return [n for n in map(ip_network, _destinations("-6")) if isinstance(n, IPv6Network)]


def _destinations(family: str) -> list[str]:
    routes = json.loads(call(["ip", family, "-json", "route", "show", "table", "all"]) or "[]")
    return [route["dst"] for route in routes if route["dst"] != "default"]


def _sysctl(name: str) -> Path:
    return Path("/proc/sys/net", name)
