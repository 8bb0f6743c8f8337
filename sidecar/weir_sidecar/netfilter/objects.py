"""The vocabulary of a ruleset: tables, sets, chains and rules as frozen values (nft(8) has the terms)."""

from enum import StrEnum

import msgspec


class Family(StrEnum):
    """The address family of a table; `inet` sees both."""

    INET = "inet"
    IP = "ip"
    IP6 = "ip6"


class ChainType(StrEnum):
    """What a base chain may do: filter, change addresses, or have the packet routed again when its mark changed."""

    FILTER = "filter"
    NAT = "nat"
    ROUTE = "route"


class Point(StrEnum):
    """The netfilter hooks in use."""

    PREROUTING = "prerouting"
    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"
    POSTROUTING = "postrouting"


class Hook(msgspec.Struct, frozen=True):
    """Where a base chain hangs. Lower priorities come first; conntrack is at -200, mangle at -150, nat at -100."""

    type: ChainType
    point: Point
    priority: int


class Rule(msgspec.Struct, frozen=True):
    """One rule: nft matches and statements, and why it is there."""

    text: str
    why: str = ""


class Chain(msgspec.Struct, frozen=True):
    """A chain; with a hook it is a base chain, whose policy is accept."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None


class DynamicSet(msgspec.Struct, frozen=True):
    """A set that the packet path fills; with a timeout it forgets. `elements` are there, as if just seen, once loaded."""

    name: str
    type: str
    size: int
    timeout_ms: int | None = None
    elements: tuple[str, ...] = ()


class Table(msgspec.Struct, frozen=True):
    """A table; all of ours have one name, and the family tells them apart."""

    family: Family
    chains: tuple[Chain, ...]
    sets: tuple[DynamicSet, ...] = ()
