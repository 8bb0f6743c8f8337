"""What only a node can do to a pod. It runs on the node, with all rights there.

usage: kill CONTAINER SIGNAL | processes CONTAINER | watch CONTAINER USER | watched CONTAINER

CONTAINER is its identifier to the runtime, USER the proxy's. Each answers with JSON.
"""

import ipaddress
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# All that leaves the pod, and is not of a flow that the proxy began, nor an answer to who called in, nor ICMP. A socket
# that is closed has no user any more, so a flow is known by its addresses once its first packet was seen, and those that
# are there already are known from the beginning.
CHAIN = """
add table inet watch
delete table inet watch
table inet watch {
  set known4 { typeof ip saddr . meta l4proto . th sport . ip daddr . th dport; size 65535; flags dynamic; %(known4)s }
  set known6 { typeof ip6 saddr . meta l4proto . th sport . ip6 daddr . th dport; size 65535; flags dynamic; %(known6)s }
  set leaks4 { typeof ip daddr . meta l4proto . th dport; size 1000; flags dynamic; }
  set leaks6 { typeof ip6 daddr . meta l4proto . th dport; size 1000; flags dynamic; }
  chain out {
    type filter hook postrouting priority 400
    oifname lo return
    ct direction reply return
    meta l4proto { icmp, icmpv6 } return
    meta nfproto ipv4 meta skuid %(user)s update @known4 { ip saddr . meta l4proto . th sport . ip daddr . th dport } counter return
    meta nfproto ipv6 meta skuid %(user)s update @known6 { ip6 saddr . meta l4proto . th sport . ip6 daddr . th dport } counter return
    ip saddr . meta l4proto . th sport . ip daddr . th dport @known4 return
    ip6 saddr . meta l4proto . th sport . ip6 daddr . th dport @known6 return
    meta nfproto ipv4 add @leaks4 { ip daddr . meta l4proto . th dport }
    meta nfproto ipv6 add @leaks6 { ip6 daddr . meta l4proto . th dport }
  }
}
"""


def processes(container: str) -> list[int]:
    """Those whose control group has the container's name, with systemd and without."""

    def found() -> Iterator[int]:
        for path in Path("/proc").glob("[0-9]*/cgroup"):
            try:
                if container in path.read_text():
                    yield int(path.parent.name)
            except OSError:  # it has ended
                continue

    return sorted(found())


def kill(container: str, number: str) -> float:
    """When it was done, in seconds since the epoch."""
    for process in processes(container):
        os.kill(process, int(number))
    return time.time()


def status(container: str) -> list[dict[str, str]]:
    """/proc/PID/status of each process (proc_pid_status(5))."""
    texts = [Path(f"/proc/{process}/status").read_text() for process in processes(container)]
    return [dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line) for text in texts]


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """One of /proc/net/tcp, tcp6: words in the machine's order."""
    packed = bytes.fromhex(text)
    made = ipaddress.ip_address(b"".join(packed[at : at + 4][::-1] for at in range(0, len(packed), 4)))
    return getattr(made, "ipv4_mapped", None) or made


def connections(process: int, user: str) -> Iterator[tuple[int, str]]:
    """The user's, each with its IP version, as an element of a set."""
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{name}").read_text().splitlines()[1:]:
            _, local, remote, *others = line.split()
            (here, port), (there, far) = local.split(":"), remote.split(":")
            if others[4] == user and int(far, 16):
                source, target = address(here), address(there)
                yield source.version, f"{source} . tcp . {int(port, 16)} . {target} . {int(far, 16)}"


def namespace(container: str) -> str:
    """Where the pod's network namespace is kept, so that it can be asked when the pod has ended."""
    return f"/tmp/{container}"


def nft(container: str, *args: str, text: str | None = None) -> str:
    argv = ["nsenter", f"--net={namespace(container)}", "nft", *args]
    return subprocess.run(argv, input=text, text=True, check=True, stdout=subprocess.PIPE).stdout


def watch(container: str, user: str) -> None:
    process = processes(container)[0]
    Path(namespace(container)).touch()
    subprocess.run(["mount", "--bind", f"/proc/{process}/ns/net", namespace(container)], check=True)
    known: dict[int, list[str]] = {4: [], 6: []}
    for version, element in connections(process, user):
        known[version].append(element)
    elements = {
        f"known{version}": f"elements = {{ {', '.join(found)} }}" if found else "" for version, found in known.items()
    }
    nft(container, "-f", "-", text=CHAIN % {"user": user, **elements})


def watched(container: str) -> dict[str, object]:
    """How many packets of the user's left the pod, and where to others went."""
    found = [
        one
        for kind in json.loads(nft(container, "-j", "list", "table", "inet", "watch"))["nftables"]
        for one in [*kind.items()]
    ]
    rules = [made["expr"] for kind, made in found if kind == "rule"]
    packets = sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)
    sets = {made["name"]: made.get("elem", []) for kind, made in found if kind == "set"}
    return {"packets": packets, "leaks": [element["concat"] for name in ("leaks4", "leaks6") for element in sets[name]]}


command, *arguments = sys.argv[1:]
print(json.dumps({"kill": kill, "processes": status, "watch": watch, "watched": watched}[command](*arguments)))
