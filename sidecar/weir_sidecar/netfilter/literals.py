"""Values of a config as nft literals: checked, merged and ordered, so that equal meanings give equal text.

Raises `RulesetError` where a value cannot be one; so nothing in a config can put words into a ruleset.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from weir_sidecar.contract.config import IDRange, PortRange

# IFNAMSIZ is 16 with its NUL; dev_valid_name() in the kernel forbids '/', ':' and blanks, and nft cannot quote '"'.
_PLAIN = r"""[!#-)+-.0-9;-[\]-~]"""
_INTERFACE = re.compile(rf"{_PLAIN}{{1,15}}|{_PLAIN}{{1,14}}\*")


class RulesetError(ValueError):
    """A config value that no rule can say; the text names the field, what was found and what is allowed."""


def merge(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted, with overlapping and adjoining ranges made one: nft refuses sets whose intervals overlap."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def port_set(ports: Iterable[PortRange]) -> str:
    """Ports as an anonymous set."""
    return _set(merge((port.first, port.last) for port in ports))


def id_set(ids: Iterable[IDRange]) -> str:
    """UIDs or GIDs as an anonymous set."""
    return _set(merge((number.first, number.last) for number in ids))


def _set(ranges: list[tuple[int, int]]) -> str:
    return "{ " + ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges) + " }"


def cidr_sets(cidrs: Iterable[str]) -> list[str]:
    """Matches on the destination, at most one a family. Host bits are ignored, as routes do."""
    v4: list[IPv4Network] = []
    v6: list[IPv6Network] = []
    for text in cidrs:
        try:
            network = ip_network(text, strict=False)
        except ValueError as error:
            raise RulesetError(
                f"exclude.cidrs: {text!r} is no address or CIDR; write 10.0.0.0/8 or fd00::/8"
            ) from error
        if isinstance(network, IPv4Network):
            v4.append(network)
        else:
            v6.append(network)
    matches = []
    if v4:
        matches.append(f"ip daddr {{ {', '.join(map(str, collapse_addresses(v4)))} }}")
    if v6:
        matches.append(f"ip6 daddr {{ {', '.join(map(str, collapse_addresses(v6)))} }}")
    return matches


def interface(name: str) -> str:
    """An interface name, quoted; a final `*` stands for any ending."""
    if not _INTERFACE.fullmatch(name):
        raise RulesetError(
            f"exclude.interfaces: {name!r} is no interface name; allowed are up to 15 characters "
            "without blanks, quotes, '/', ':' and '\\', and '*' at the end",
        )
    return f'"{name}"'
