"""Rules and routes as the kernel has them, and as ip(8) shows them."""

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from netns.capture_lab import inside, sh
from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.netsetup.rtnetlink import Routing, Rule

pytestmark = pytest.mark.netns
NAME = f"wr{os.getpid()}"
RULE = Rule(priority=15801, mark=0x10000000, mask=0x30000000, table=15801)
each_family = pytest.mark.parametrize(("family", "flag"), [(socket.AF_INET, "-4"), (socket.AF_INET6, "-6")])


@pytest.fixture
def routing() -> Iterator[Routing]:
    sh("ip", "netns", "add", NAME)
    with inside(NAME), Routing() as made:
        made.loopback_up()
        yield made
    subprocess.run(["ip", "netns", "del", NAME], check=True)


@each_family
def test_a_rule_is_as_ip_would_make_it_and_there_once(routing: Routing, family: int, flag: str) -> None:
    for _ in ("once", "twice"):
        routing.add_rule(family, RULE)
    shown = sh("ip", "-n", NAME, flag, "rule", "show", "priority", "15801").split()
    assert shown == ["15801:", "from", "all", "fwmark", "0x10000000/0x30000000", "lookup", "15801"]
    assert routing.rules(family).count(RULE) == 1
    routing.remove_rule(family, RULE)
    assert RULE not in routing.rules(family)
    with pytest.raises(CaptureError, match="remove a policy rule: No such file"):
        routing.remove_rule(family, RULE)


@each_family
def test_a_route_is_as_ip_would_make_it_and_goes_away(routing: Routing, family: int, flag: str) -> None:
    assert not routing.has_route(family, 15801)
    for _ in ("once", "twice"):
        routing.add_route(family, 15801)
    (shown,) = sh("ip", "-n", NAME, flag, "route", "show", "table", "15801").splitlines()
    assert shown.startswith("local default dev lo ")
    assert routing.has_route(family, 15801)
    for _ in ("once", "twice"):
        routing.remove_route(family, 15801)
    assert not routing.has_route(family, 15801)


@each_family
def test_what_ip_made_is_seen(routing: Routing, family: int, flag: str) -> None:
    for number in range(40):  # more than one message
        sh("ip", "-n", NAME, flag, "route", "add", "local", "default", "dev", "lo", "table", str(1000 + number))
    sh("ip", "-n", NAME, flag, "rule", "add", "priority", "7", "fwmark", "0x5/0xf", "lookup", "1039")
    assert routing.has_route(family, 1039)
    assert Rule(priority=7, mark=5, mask=15, table=1039) in routing.rules(family)


def test_without_the_right_to_it_says_so(routing: Routing) -> None:
    os.seteuid(65534)
    try:
        with pytest.raises(CaptureError, match="add a route: Operation not permitted; run `weir doctor`"):
            routing.add_route(socket.AF_INET, 15801)
    finally:
        os.seteuid(0)
