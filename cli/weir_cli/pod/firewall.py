"""The host's nftables for one pod: masquerade, forwarding, and the way to a loopback resolver. Text for `nft -f -`."""

import json
from collections.abc import Sequence
from ipaddress import IPv4Address

import msgspec

from weir_cli.pod.addresses import Link
from weir_cli.pod.names import Pod


class Chain(msgspec.Struct, frozen=True):
    """A base chain of somebody else's that drops what nobody accepts, and stands in the pod's way."""

    family: str
    table: str
    name: str


def render(pod: Pod, link: Link, stub: IPv4Address | None, dropping: Sequence[Chain] = ()) -> str:
    """The pod's table, made anew in one transaction, and an accept in each chain that would drop forwarded packets."""
    lines = [
        f"add table inet {pod.table}",
        f"delete table inet {pod.table}",
        f"table inet {pod.table} {{",
        *_chain(
            "forward",
            "filter hook forward priority filter",
            [f'iifname "{pod.link}" accept', f'oifname "{pod.link}" accept'],
        ),
        *_chain(
            "postrouting",
            "nat hook postrouting priority srcnat",
            [
                f'ip saddr {link.network4} oifname != "{pod.link}" masquerade',
                f'ip6 saddr {link.network6} oifname != "{pod.link}" masquerade',
            ],
        ),
        *(_stub(pod, link, stub) if stub else []),
        "}",
        *(
            f'insert rule {chain.family} {chain.table} {chain.name} {end} "{pod.link}" accept comment "{pod.table}"'
            for chain in dropping
            for end in ("iifname", "oifname")
        ),
    ]
    return "\n".join(lines) + "\n"


def _stub(pod: Pod, link: Link, stub: IPv4Address) -> list[str]:
    """Port 53 of the gateway is the loopback stub's, from this link only; the stub sees loopback as who asks."""
    return [
        *_chain(
            "prerouting",
            "nat hook prerouting priority dstnat",
            [f'iifname "{pod.link}" ip daddr {link.host4} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {stub}'],
        ),
        *_chain(
            "input",
            "nat hook input priority 100",
            [f'iifname "{pod.link}" ip daddr {stub} meta l4proto {{ tcp, udp }} th dport 53 snat ip to 127.0.0.1'],
        ),
        # route_localnet lets the link reach all of 127.0.0.0/8: only what was translated may.
        *_chain(
            "guard",
            "filter hook input priority filter",
            [f'iifname "{pod.link}" ip daddr 127.0.0.0/8 ct status and dnat == 0 drop'],
        ),
    ]


def _chain(name: str, hook: str, rules: list[str]) -> list[str]:
    return [f"  chain {name} {{", f"    type {hook};", *(f"    {rule}" for rule in rules), "  }"]


def dropping(chains_json: str) -> tuple[Chain, ...]:
    """The chains at hook forward with policy drop, from `nft -j list chains`: Docker's and ufw's are such."""
    found = (item["chain"] for item in json.loads(chains_json)["nftables"] if "chain" in item)
    return tuple(
        Chain(chain["family"], chain["table"], chain["name"])
        for chain in found
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["family"] in {"ip", "ip6", "inet"}
    )


def foreign_rules(ruleset_json: str, pod: Pod) -> list[str]:
    """The commands that delete the pod's rules from tables of others, from `nft -j -a list ruleset`."""
    found = (item["rule"] for item in json.loads(ruleset_json)["nftables"] if "rule" in item)
    return [
        f"delete rule {rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}"
        for rule in found
        if rule.get("comment") == pod.table
    ]
