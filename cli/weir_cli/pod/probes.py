"""What this machine has of what a pod needs, found by trying it in a throw-away network namespace."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from weir_cli.finding import Finding

NFT_NEEDED = (1, 0, 6)
PYTHON_NEEDED = (3, 12)
_CAPABILITIES = {0: "CHOWN", 6: "SETGID", 7: "SETUID", 8: "SETPCAP", 12: "NET_ADMIN", 13: "NET_RAW", 21: "SYS_ADMIN"}


class _Kernel(msgspec.Struct, frozen=True):
    """A kernel feature and the ruleset that needs it."""

    what: str
    rules: str
    advice: str
    needed: bool = True


def _in_chain(kind: str, hook: str, rule: str, family: str = "inet") -> str:
    return f"table {family} t {{\n chain c {{\n type {kind} hook {hook} priority 0\n {rule}\n }}\n }}\n"


_ADVICE = "the kernel needs {}; try `modprobe {}`"
_KERNEL = (
    _Kernel("nf_tables", "table inet t {\n }\n", _ADVICE.format("CONFIG_NF_TABLES_INET", "nf_tables")),
    _Kernel(
        "tproxy",
        _in_chain("filter", "prerouting", "meta l4proto tcp tproxy to :1"),
        _ADVICE.format("CONFIG_NFT_TPROXY", "nft_tproxy"),
    ),
    _Kernel(
        "rerouting in OUTPUT",
        _in_chain("route", "output", "meta mark set 1"),
        _ADVICE.format("CONFIG_NF_TABLES_INET", "nf_tables"),
    ),
    _Kernel("fib", _in_chain("filter", "output", "fib daddr type local accept"), _ADVICE.format("NFT_FIB", "nft_fib")),
    _Kernel(
        "connection tracking",
        _in_chain("filter", "output", "ct mark set 1"),
        _ADVICE.format("CONFIG_NFT_CT", "nft_ct"),
    ),
    _Kernel(
        "sets that packets update",
        "table inet t {\n set s {\n type nf_proto\n size 16\n flags dynamic,timeout\n timeout 1s\n }\n"
        " chain c {\n type filter hook output priority 0\n update @s { meta nfproto }\n }\n }\n",
        "the kernel must be 5.10 or newer",
    ),
    _Kernel("reject", _in_chain("filter", "output", "reject"), _ADVICE.format("CONFIG_NFT_REJECT", "nft_reject")),
    _Kernel("masquerade", _in_chain("nat", "postrouting", "masquerade"), _ADVICE.format("CONFIG_NFT_MASQ", "nft_masq")),
    _Kernel(
        "dup",
        _in_chain("filter", "prerouting", "dup to ip daddr", "ip"),
        "without CONFIG_NFT_DUP_IPV4 the first connection after the proxy died takes a second longer",
        needed=False,
    ),
)


def all_findings() -> list[Finding]:
    """Everything, in the order in which one thing builds on another; what cannot be tried is left out."""
    findings = [python(sys.version_info[:3]), root(os.geteuid(), _effective()), *programs(shutil.which)]
    nft = shutil.which("nft")
    if nft:
        findings.append(nft_version(subprocess.run([nft, "--version"], capture_output=True, text=True).stdout))  # noqa: PLW1510
    if all(finding.present for finding in findings if finding.needed):
        findings += _in_namespace()
    return findings


def python(version: tuple[int, ...]) -> Finding:
    """Whether this Python can enter namespaces."""
    found = ".".join(map(str, version))
    return Finding("Python 3.12 or newer", version[:2] >= PYTHON_NEEDED, found, "install a newer Python")


def root(uid: int, capabilities: int) -> Finding:
    """Whether we may do what a pod takes."""
    lacking = [name for number, name in _CAPABILITIES.items() if not capabilities >> number & 1]
    if uid != 0:
        return Finding("root", present=False, found=f"running as UID {uid}", advice="run it with sudo")
    found = f"root without {', '.join(lacking)}" if lacking else "all capabilities"
    return Finding("root", not lacking, found, "in a container, start it with --privileged")


def programs(which: Callable[[str], str | None]) -> list[Finding]:
    """Whether the programs that set up a pod are installed."""
    packages = {"ip": "iproute2", "nft": "nftables"}
    return [
        Finding(f"program {name}", bool(path := which(name)), path or "", f"on Debian: apt install {package}")
        for name, package in packages.items()
    ]


def nft_version(text: str) -> Finding:
    """Whether nft is new enough, from what `nft --version` prints."""
    match = re.search(r"v(\d+)\.(\d+)\.(\d+)", text)
    version = tuple(map(int, match.groups())) if match else ()
    needed = ".".join(map(str, NFT_NEEDED))
    return Finding(
        f"nft {needed} or newer", version >= NFT_NEEDED, text.strip() or "nothing", "install a newer nftables"
    )


def _in_namespace() -> list[Finding]:
    """Try the kernel's features where nothing can be hurt: in a namespace that ends with a child process."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(readable)
        try:
            os.write(writable, msgspec.json.encode(_try_kernel()))
        finally:
            os._exit(0)
    os.close(writable)
    with open(readable, "rb") as pipe:  # noqa: PTH123 - a descriptor
        data = pipe.read()
    os.waitpid(pid, 0)
    return msgspec.json.decode(data, type=list[Finding])


def _try_kernel() -> list[Finding]:
    try:
        os.unshare(os.CLONE_NEWNET | os.CLONE_NEWNS)
    except OSError as error:
        advice = "the kernel needs CONFIG_NET_NS, and a container --privileged"
        return [Finding("network and mount namespaces", present=False, found=error.strerror or "", advice=advice)]
    return [Finding("network and mount namespaces", present=True), _veth(), *map(_kernel, _KERNEL), _packet(), _ipv6()]


def _kernel(feature: _Kernel) -> Finding:
    done = subprocess.run(["nft", "--check", "--file", "-"], input=feature.rules, capture_output=True, text=True)  # noqa: PLW1510
    complaint = done.stderr.strip().partition("\n")[0]
    return Finding(f"kernel: {feature.what}", done.returncode == 0, complaint, feature.advice, feature.needed)


def _veth() -> Finding:
    done = subprocess.run(["ip", "link", "add", "v0", "type", "veth"], capture_output=True, text=True)  # noqa: PLW1510
    advice = _ADVICE.format("CONFIG_VETH", "veth")
    return Finding("kernel: veth", done.returncode == 0, done.stderr.strip(), advice)


def _packet() -> Finding:
    """What sees a connection before it is accepted, so that a refused one is refused."""
    advice = _ADVICE.format("CONFIG_PACKET", "af_packet")
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).close()
    except OSError as error:
        return Finding("kernel: packet sockets", present=False, found=error.strerror or "", advice=advice)
    return Finding("kernel: packet sockets", present=True)


def _ipv6() -> Finding:
    present = Path("/proc/sys/net/ipv6").exists()
    return Finding("kernel: IPv6", present, advice="pods here have IPv4 only", needed=False)


def _effective() -> int:
    line = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(line[1], 16) if line else 0
