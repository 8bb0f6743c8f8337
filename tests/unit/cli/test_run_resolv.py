"""Which nameservers a pod gets, case by case of what hosts have."""

from ipaddress import IPv4Address

import pytest

from weir_cli.pod.resolv import HEADER, Resolver, plan

GATEWAY = IPv4Address("10.213.0.1")


def servers(resolver: Resolver) -> list[str]:
    return [line.split()[1] for line in resolver.text.splitlines() if line.startswith("nameserver")]


@pytest.mark.parametrize(
    ("host", "behind", "expected", "stub"),
    [
        ("nameserver 9.9.9.9\nnameserver 2620:fe::fe\n", None, ["9.9.9.9", "2620:fe::fe"], None),
        ("nameserver 127.0.0.53\n", "nameserver 192.0.2.1\nnameserver 192.0.2.2\n", ["192.0.2.1", "192.0.2.2"], None),
        ("nameserver 127.0.0.53\n", None, [str(GATEWAY)], "127.0.0.53"),
        ("nameserver 127.0.0.53\n", "nameserver 127.0.0.1\n", [str(GATEWAY)], "127.0.0.53"),
        ("nameserver 127.0.0.1\n", "nameserver 192.0.2.1\n", [str(GATEWAY)], "127.0.0.1"),
        ("nameserver 127.0.1.1\nnameserver 9.9.9.9\n", None, [str(GATEWAY), "9.9.9.9"], "127.0.1.1"),
        ("nameserver ::1\n", None, [str(GATEWAY)], "127.0.0.1"),
        ("nameserver fe80::1%eth0\nnameserver 9.9.9.9\n", None, ["9.9.9.9"], None),
        ("", None, [str(GATEWAY)], "127.0.0.1"),
        ("# nothing\nnameserver\nnameserver nonsense\n", None, [str(GATEWAY)], "127.0.0.1"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_nameservers(host: str, behind: str | None, expected: list[str], stub: str | None) -> None:
    resolver = plan(host, behind, GATEWAY)
    assert servers(resolver) == expected
    assert resolver.stub == (IPv4Address(stub) if stub else None)


def test_what_is_not_a_nameserver_is_kept() -> None:
    resolver = plan("search a.example b.example\noptions ndots:2 edns0\nnameserver 9.9.9.9\n", None, GATEWAY)
    assert resolver.text == f"{HEADER}\nnameserver 9.9.9.9\nsearch a.example b.example\noptions ndots:2 edns0\n"
