"""Which addresses the link between host and pod gets: small networks that overlap nothing the host routes."""

import hashlib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec

from weir_cli.pod.errors import SetupError

# Private pools, the least used corners first. Not 100.64.0.0/10: Tailscale drops what comes from there by another way.
POOLS = (IPv4Network("10.213.0.0/16"), IPv4Network("172.30.0.0/16"), IPv4Network("192.168.208.0/20"))

# A route this short is a default route cut in pieces (as VPNs do), and anything more specific lives beside it.
_DEFAULT_LIKE_4 = 4
_DEFAULT_LIKE_6 = 7
_ATTEMPTS_6 = 16


class Link(msgspec.Struct, frozen=True):
    """The pod's link: one IPv4 /30 and one IPv6 /64, the host first, the pod second."""

    network4: IPv4Network
    network6: IPv6Network

    @property
    def host4(self) -> IPv4Address:
        """The host's IPv4 address, the pod's gateway."""
        return self.network4[1]

    @property
    def pod4(self) -> IPv4Address:
        """The pod's IPv4 address."""
        return self.network4[2]

    @property
    def host6(self) -> IPv6Address:
        """The host's IPv6 address, the pod's gateway."""
        return self.network6[1]

    @property
    def pod6(self) -> IPv6Address:
        """The pod's IPv6 address."""
        return self.network6[2]


def choose(name: str, routed4: Iterable[IPv4Network], routed6: Iterable[IPv6Network]) -> Link:
    """A link for pod `name` that overlaps none of the routed networks; the same for the same arguments."""
    seed = hashlib.blake2s(name.encode()).digest()
    return Link(
        _choose4(int.from_bytes(seed[:4]), [n for n in routed4 if n.prefixlen > _DEFAULT_LIKE_4]),
        _choose6(seed, [n for n in routed6 if n.prefixlen > _DEFAULT_LIKE_6]),
    )


def _choose4(start: int, routed: list[IPv4Network]) -> IPv4Network:
    for pool in POOLS:
        near = [network for network in routed if network.overlaps(pool)]
        if any(network.supernet_of(pool) for network in near):
            continue
        for candidate in _from(start, pool):
            if not any(candidate.overlaps(network) for network in near):
                return candidate
    pools = ", ".join(map(str, POOLS))
    raise SetupError(f"no free IPv4 network for the pod: the host routes all of {pools}; see `ip route show table all`")


def _from(start: int, pool: IPv4Network) -> Iterator[IPv4Network]:
    """Every /30 of the pool once, beginning at a place of its own so that runs spread."""
    count = 1 << (30 - pool.prefixlen)
    base = int(pool.network_address)
    for step in range(count):
        yield IPv4Network((base + ((start + step) % count) * 4, 30))


def _choose6(seed: bytes, routed: list[IPv6Network]) -> IPv6Network:
    """A unique local /64 (RFC 4193: fd00::/8 and 40 bits of digest), drawn again while it overlaps a route."""
    for attempt in range(_ATTEMPTS_6):
        digest = hashlib.blake2s(seed + bytes([attempt]), digest_size=7).digest()
        candidate = IPv6Network((b"\xfd" + digest + bytes(8), 64))
        if not any(candidate.overlaps(network) for network in routed):
            return candidate
    raise SetupError(
        "no free IPv6 network for the pod: the host routes all of fd00::/8; see `ip -6 route show table all`"
    )
