"""Every golden ruleset on the real kernel: loads, loads twice the same, and goes without a trace."""

import os
import re
import subprocess
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.ruleset_cases import CASES
from netns.capture_lab import acting_as, inside, sh, sysctl
from weir_sidecar.contract.config import DNS, Capture, Exclude, IDRange, PortRange, SidecarConfig
from weir_sidecar.netfilter.features import Features
from weir_sidecar.netfilter.literals import RulesetError
from weir_sidecar.netfilter.render import render, render_removal
from weir_sidecar.netsetup import capture, features
from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.netsetup.nftables import comment_of

pytestmark = pytest.mark.netns
NAME = f"wk{os.getpid()}-rules"


@pytest.fixture
def namespace() -> Iterator[str]:
    sh("ip", "netns", "add", NAME)
    try:
        with inside(NAME):
            yield NAME
    finally:
        sh("ip", "netns", "del", NAME)


def by_program(text: str, *flags: str) -> None:
    """Load as people do."""
    subprocess.run(["nft", *flags, "--file", "-"], input=text, text=True, check=True)


def everything() -> str:
    """All that capture could leave behind, without what changes by itself."""
    rules = re.sub(r" expires \S+| timeout \S+ms", "", sh("nft", "--stateless", "list", "ruleset"))
    shown = [sh("ip", flag, *what) for flag in ("-4", "-6") for what in (("rule",), ("route", "show", "table", "all"))]
    return "\n".join([rules, *shown])


@pytest.mark.parametrize("name", CASES)
def test_text_loads_twice_alike_and_goes_clean(namespace: str, name: str) -> None:
    text = render(*CASES[name])
    by_program(text)
    once = sh("nft", "-s", "list", "ruleset")
    by_program(text)
    assert sh("nft", "-s", "list", "ruleset") == once
    assert "table inet weir" in once
    by_program(render_removal(Features()))
    assert sh("nft", "list", "ruleset") == ""


@pytest.mark.parametrize("name", CASES)
def test_apply_twice_check_and_remove(namespace: str, name: str) -> None:
    config = CASES[name][0]
    sh("ip", "link", "set", "lo", "up")
    before = everything()
    assert capture.check(config)
    capture.apply(config)
    once = everything()
    assert capture.check(config) == ()
    capture.apply(config)
    assert everything() == once
    capture.remove(config)
    assert everything() == before
    capture.remove(config)
    assert everything() == before


def test_apply_brings_loopback_up(namespace: str) -> None:
    capture.apply(SidecarConfig())
    assert "UP" in sh("ip", "link", "show", "lo")


def test_applying_the_same_does_not_touch_the_switch(namespace: str) -> None:
    config = SidecarConfig()
    capture.apply(config)
    sh("nft", "flush", "set", "inet", "weir", "alive")
    capture.apply(config)
    assert "elements" not in sh("nft", "list", "set", "inet", "weir", "alive")


def test_another_config_replaces_the_rules_and_the_mode_the_routes(namespace: str) -> None:
    sh("ip", "link", "set", "lo", "up")
    bare = everything()
    for first, second in (("default", "closed"), ("closed", "redirect"), ("redirect", "default")):
        capture.apply(CASES[first][0])
        capture.apply(CASES[second][0])
        assert capture.check(CASES[second][0]) == ()
        assert capture.check(CASES[first][0])
    capture.apply(CASES["redirect"][0])
    assert "15801" not in sh("ip", "rule")
    capture.remove(CASES["redirect"][0])
    assert everything() == bare


def test_what_is_missing_is_named(namespace: str) -> None:
    config = SidecarConfig()
    capture.apply(config)
    sh("ip", "-6", "rule", "del", "priority", "15801")
    sh("ip", "-4", "route", "flush", "table", "15801")
    sh("nft", "delete", "table", "inet", "weir")
    table, route, rule = capture.check(config)
    assert "nft table inet weir" in table
    assert "-4 route" in route
    assert "-6 rule" in rule
    capture.apply(config)
    assert capture.check(config) == ()


RANGES = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(sorted)
PORTS = st.lists(RANGES.map(lambda pair: PortRange(*pair)), max_size=3).map(tuple)
IDS = st.lists(RANGES.map(lambda pair: IDRange(*pair)), max_size=3).map(tuple)
CIDRS = st.lists(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str), max_size=3).map(tuple)
NAMES = st.lists(st.from_regex(r"[!-~]{1,14}[!-~*]?", fullmatch=True), max_size=2).map(tuple)
CAPTURES = st.builds(
    Capture,
    ports=PORTS,
    exclude=st.builds(Exclude, ports=PORTS, cidrs=CIDRS, uids=IDS, gids=IDS, interfaces=NAMES),
    dns=st.builds(DNS, capture=st.booleans()),
    other_protocols=st.booleans(),
)
CONFIGS = st.builds(SidecarConfig, capture=CAPTURES)


@settings(max_examples=60, deadline=None)
@given(CONFIGS, st.builds(Features, dup=st.booleans(), ipv6=st.booleans()))
def test_what_renders_loads(config: SidecarConfig, found: Features) -> None:
    try:
        text = render(config, found)
    except RulesetError:
        assert config.capture.exclude.interfaces  # the only part here that may hold what no rule can say
        return
    by_program(text, "--check")


def test_other_rules_and_tables_stay(namespace: str) -> None:
    sh("nft", "add", "table", "inet", "other")
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "rule", "add", "priority", "15801", "fwmark", "0x5", "lookup", "77")
    before = everything()
    capture.apply(SidecarConfig())
    capture.remove(SidecarConfig())
    assert everything() == before


def test_without_ipv6(namespace: str) -> None:
    sysctl(NAME, "net.ipv6.conf.all.disable_ipv6", 1)
    sh("ip", "link", "set", "lo", "up")
    before = everything()
    capture.apply(SidecarConfig())
    assert capture.check(SidecarConfig()) == ()
    assert "15801" not in sh("ip", "-6", "rule")
    capture.remove(SidecarConfig())
    assert everything() == before


def test_a_table_that_was_left_of_other_rules_is_replaced(namespace: str) -> None:
    capture.apply(SidecarConfig())
    whole = sh("nft", "-s", "list", "ruleset")
    sh("nft", "delete", "table", "inet", "weir")
    sh("nft", "add", "chain", "ip", "weir", "stranger")
    capture.apply(SidecarConfig())
    assert sorted(sh("nft", "-s", "list", "ruleset").split("\n")) == sorted(whole.split("\n"))


@pytest.mark.parametrize(
    ("commands", "comment"),
    [
        ("", None),
        ("add table ip weir", None),
        ("add table inet weird", None),
        ("add table inet weir", ""),
        ('add table inet weir { flags dormant; comment "weir 0123"; }', "weir 0123"),
    ],
)
def test_what_a_table_says_of_itself(namespace: str, commands: str, comment: str | None) -> None:
    by_program(commands)
    assert comment_of("weir") == comment


def test_without_the_right_to_ask_it_says_so(namespace: str) -> None:
    with acting_as(1000), pytest.raises(CaptureError, match="not permitted"):
        comment_of("weir")


def test_features_are_found_without_a_trace(namespace: str) -> None:
    assert features.detect().ipv6
    assert sh("nft", "list", "ruleset") == ""


def test_a_ruleset_that_nft_refuses_is_told(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "render", lambda config, found: "table inet weir { nonsense }\n")
    with pytest.raises(CaptureError) as caught:
        capture.apply(SidecarConfig())
    assert str(caught.value).startswith("nft: ")
    assert "syntax error" in str(caught.value)
    assert "weir doctor" in str(caught.value)
    assert "weir" not in sh("nft", "list", "tables")


def test_a_config_no_rule_can_say_changes_nothing(namespace: str) -> None:
    before = everything()
    wrong = msgspec.structs.replace(SidecarConfig().marks, mask=0x10000000)
    with pytest.raises(ValueError, match="two bits"):
        capture.apply(msgspec.structs.replace(SidecarConfig(), marks=wrong))
    assert everything() == before
