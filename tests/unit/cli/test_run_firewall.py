"""The host's rules for a pod, as text."""

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from weir_cli.pod import firewall
from weir_cli.pod.addresses import Link
from weir_cli.pod.firewall import Chain
from weir_cli.pod.names import Pod

POD = Pod("a")
LINK = Link(IPv4Network("10.213.0.0/30"), IPv6Network("fd00:1::/64"))


def test_a_plain_pod_is_masqueraded_and_forwarded() -> None:
    text = firewall.render(POD, LINK, None)
    assert f'ip saddr 10.213.0.0/30 oifname != "{POD.link}" masquerade' in text
    assert f'ip6 saddr fd00:1::/64 oifname != "{POD.link}" masquerade' in text
    assert "dnat" not in text


def test_a_loopback_resolver_is_reached_through_the_gateway_from_this_link_only() -> None:
    text = firewall.render(POD, LINK, IPv4Address("127.0.0.53"))
    assert (
        f'iifname "{POD.link}" ip daddr 10.213.0.1 meta l4proto {{ tcp, udp }} th dport 53 dnat ip to 127.0.0.53'
        in text
    )
    assert f'iifname "{POD.link}" ip daddr 127.0.0.0/8 ct status and dnat == 0 drop' in text


def test_chains_that_drop_what_nobody_accepts_get_an_accept_that_can_be_found_again() -> None:
    chains = [
        {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"},
        {"family": "inet", "table": "fine", "name": "forward", "hook": "forward", "policy": "accept"},
        {"family": "bridge", "table": "b", "name": "forward", "hook": "forward", "policy": "drop"},
        {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"},
        {"family": "ip", "table": "filter", "name": "DOCKER"},
    ]
    found = firewall.dropping(json.dumps({"nftables": [{"metainfo": {}}, *({"chain": chain} for chain in chains)]}))
    assert found == (Chain("ip", "filter", "FORWARD"),)
    text = firewall.render(POD, LINK, None, found)
    assert f'insert rule ip filter FORWARD iifname "{POD.link}" accept comment "weir-run-a"' in text
    rules = [
        {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 7, "comment": "weir-run-a"},
        {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 8, "comment": "weir-run-ab"},
        {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 9},
    ]
    ruleset = json.dumps({"nftables": [{"rule": rule} for rule in rules]})
    assert firewall.foreign_rules(ruleset, POD) == ["delete rule ip filter FORWARD handle 7"]
