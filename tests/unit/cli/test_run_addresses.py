"""Which networks a pod's link gets."""

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_cli.pod.addresses import POOLS, choose
from weir_cli.pod.errors import SetupError

NETWORKS4 = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.integers(0x0A000000, 0x0AFFFFFF),
    st.integers(8, 32),
)
NETWORKS6 = st.builds(
    lambda address, length: IPv6Network((address, length), strict=False),
    st.integers(0xFD << 120, (0xFE << 120) - 1),
    st.integers(16, 128),
)


@given(st.text(max_size=10), st.lists(NETWORKS4, max_size=20), st.lists(NETWORKS6, max_size=20))
def test_a_link_overlaps_nothing_that_is_routed(
    name: str, routed4: list[IPv4Network], routed6: list[IPv6Network]
) -> None:
    link = choose(name, routed4, routed6)
    assert not any(link.network4.overlaps(network) for network in routed4)
    assert not any(link.network6.overlaps(network) for network in routed6)
    assert link.network4.prefixlen == 30
    assert link.network6.prefixlen == 64
    assert link.network6.is_private
    assert {link.host4, link.pod4} == set(link.network4.hosts())


def test_the_same_name_gets_the_same_link_and_the_next_one_when_it_is_taken() -> None:
    first = choose("a", [], [])
    assert choose("a", [], []) == first
    second = choose("a", [first.network4], [first.network6])
    assert second.network4 != first.network4
    assert second.network6 != first.network6


def test_a_vpn_that_routes_everything_in_halves_takes_nothing() -> None:
    halves = [IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1")]
    assert choose("a", halves, []) == choose("a", [], [])


def test_a_pool_that_is_routed_elsewhere_is_left_for_the_next() -> None:
    assert choose("a", [IPv4Network("10.0.0.0/8")], []).network4.subnet_of(POOLS[1])


def test_no_free_network_is_said_with_the_pools() -> None:
    with pytest.raises(SetupError, match=r"10\.213\.0\.0/16"):
        choose("a", list(POOLS), [])
    with pytest.raises(SetupError, match="fd00::/8"):
        choose("a", [], [IPv6Network("fd00::/8")])
