"""Who sent what left a pod: kept by the kernel on both ends of the pod's link, and compared.

In the pod a rule sees which user a packet's socket belongs to; on the machine another sees every packet that comes out,
whatever way it went round the rules in the pod. A packet whose socket lost its process (the last words of a connection
whose proxy was killed) belongs to nobody, so it is known by the flow that it is part of.
"""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from lab.running import RunningWeir

_FLOW = "meta l4proto . th sport . {0} daddr . th dport"
_OPENS = ("meta l4proto udp", "tcp flags & (syn | ack) == syn")
_LINK = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-report, 143 }"
"""What the pod's kernel says to its neighbour on the link; it carries nothing and is forwarded by nobody."""


_FAMILIES = {"ip": "ipv4", "ip6": "ipv6"}


def _table(chain: str, hook: str, rules: list[str]) -> str:
    kinds = {ip: f"inet_proto . inet_service . {name}_addr . inet_service" for ip, name in _FAMILIES.items()}
    lines = [
        "table inet accounts {",
        *(f"counter {name} {{\n}}" for name in ("openings", "strangers")),
        *(f"set flows_{ip} {{\ntype {kind}\nsize 262144\nflags dynamic\n}}" for ip, kind in kinds.items()),
        f"chain {chain} {{",
        f"type filter hook {hook};",
        *rules,
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _note(match: str) -> list[str]:
    return [
        *(f"{match} {opens} counter name openings" for opens in _OPENS),
        *(f"{match} meta l4proto {{ tcp, udp }} add @flows_{ip} {{ {_FLOW.format(ip)} }}" for ip in _FAMILIES),
    ]


def _pod_rules(uid: int) -> str:
    mine = _note(f"meta skuid {uid}")
    rules = ['oifname "lo" accept', f"{_LINK} accept", *mine, f"meta skuid != {uid} counter name strangers"]
    return _table("out", "postrouting priority 300", rules)


def _machine_rules() -> str:
    stranger = "meta l4proto != { tcp, udp } counter name strangers"
    return _table(
        "from_pod",
        "prerouting priority raw",
        ['iifname != "weir*" accept', f"{_LINK} accept", *_note(""), stranger],
    )


@dataclass(frozen=True)
class Book:
    """One side's account: counters by name, and flows as (protocol, source port, address, port)."""

    counters: dict[str, int]
    flows: set[tuple[Any, ...]]


class Accounts:
    """Both books of one running pod, from now until `close`."""

    def __init__(self, pod: RunningWeir, uid: int) -> None:
        self._pod = pod
        self._uid = uid
        pod.in_pod(["nft", "-f", "-"], input=_pod_rules(uid))
        subprocess.run(pod.lab.network.inside(["nft", "-f", "-"]), input=_machine_rules(), text=True, check=True)

    def close(self) -> tuple[Book, Book]:
        """The book of what the proxy sent, kept in the pod, and of what came out, kept on the machine."""
        listing = ["nft", "-j", "list", "table", "inet", "accounts"]
        sent = _read(self._pod.in_pod(listing))
        inside = self._pod.lab.network.inside
        came = _read(subprocess.run(inside(listing), stdout=subprocess.PIPE, text=True, check=True).stdout)
        subprocess.run(inside(["nft", "delete", "table", "inet", "accounts"]), check=True)
        return sent, came


def _read(listing: str) -> Book:
    items = json.loads(listing)["nftables"]
    counters = {i["counter"]["name"]: i["counter"]["packets"] for i in items if "counter" in i}
    sets = [i["set"] for i in items if "set" in i]
    flows = {tuple(element["concat"]) for found in sets for element in found.get("elem", [])}
    return Book(counters, flows)
