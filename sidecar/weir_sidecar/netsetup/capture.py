"""Puts capture in place in the current network namespace, checks it, and takes it away.

Order: loopback up, policy routes, rules last; teardown in reverse. So there is never a rule that marks packets for a
route that is not there. Applying twice changes nothing; removing leaves nothing (loopback stays up, pods need it).
No sysctl is set: packets come back over loopback with the route they were given, so rp_filter, route_localnet,
src_valid_mark and ip_forward are not asked (tests/netns/test_switch.py holds them to it).
"""

import socket
from collections.abc import Callable, Iterator

from weir_sidecar.contract.config import CaptureMode, Marks, SidecarConfig
from weir_sidecar.netfilter.features import Features
from weir_sidecar.netfilter.render import TABLE, loaded_as, render, render_removal
from weir_sidecar.netsetup.features import detect
from weir_sidecar.netsetup.nftables import Family, Nft, comment_of
from weir_sidecar.netsetup.rtnetlink import Routing, Rule

LOAD_ADVICE = "nothing was loaded; run `weir doctor` to see what this kernel lacks"


def load(text: str) -> None:
    """Load a ruleset's text. Raises `CaptureError`: then nothing was."""
    with Nft() as nft:
        nft.run(text, LOAD_ADVICE)


def apply(config: SidecarConfig, known: Features | None = None, loader: Callable[[str], None] = load) -> None:
    """Capture as the config says. Raises `CaptureError`, and `RulesetError` for a config no rule can say.

    Who sets up many pods of one kernel looks once at what it can do, and gives it as `known`.
    """
    features = known or detect()
    text = render(config, features)
    with Routing() as routing:
        if config.capture.mode is CaptureMode.TPROXY:
            routing.loopback_up()
            for family in _families(features):
                routing.add_route(family, config.marks.table)
                routing.add_rule(family, _rule(config.marks))
        if not _is_loaded(text):
            loader(text if _has_tables() else text.removeprefix(render_removal(features)))
        if config.capture.mode is not CaptureMode.TPROXY:
            _remove_policies(routing, config.marks, features)


def remove(config: SidecarConfig) -> None:
    """Take away all that `apply` made, whatever config it was called with, if its marks were these."""
    features = detect()
    with Nft() as nft:
        nft.run(render_removal(features))
    with Routing() as routing:
        _remove_policies(routing, config.marks, features)


def check(config: SidecarConfig, known: Features | None = None) -> tuple[str, ...]:
    """What is not as `apply` would leave it, in words; empty when all is. Changes nothing. Raises `CaptureError`."""
    features = known or detect()
    missing = (
        () if _is_loaded(render(config, features)) else (f"nft table inet {TABLE} is missing or of another config",)
    )
    return missing + check_routes(config, features)


def check_routes(config: SidecarConfig, features: Features) -> tuple[str, ...]:
    """What is not as `apply` would leave it, of policy rules and routes alone: no program is run. As `check`."""
    if config.capture.mode is not CaptureMode.TPROXY:
        return ()
    with Routing() as routing:
        return tuple(one for family in _families(features) for one in _missing(routing, family, config.marks))


def _missing(routing: Routing, family: socket.AddressFamily, marks: Marks) -> Iterator[str]:
    """The policy rule and the route of one family, where they are not there. The table's number is the rule's priority."""
    flag = "-4" if family == socket.AF_INET else "-6"
    if _ours(routing, family, marks) != [_rule(marks)]:
        mark = f"{marks.mark:#x}/{marks.mask:#x}"
        yield f"ip {flag} rule priority {marks.table} fwmark {mark} lookup {marks.table} is missing"
    if not routing.has_route(family, marks.table):
        yield f"ip {flag} route local default dev lo table {marks.table} is missing"


def _rule(marks: Marks) -> Rule:
    return Rule(priority=marks.table, mark=marks.mark, mask=marks.mask, table=marks.table)


def _ours(routing: Routing, family: socket.AddressFamily, marks: Marks) -> list[Rule]:
    """The rules at our priority that look up our table, as the kernel has them."""
    return [rule for rule in routing.rules(family) if rule.priority == rule.table == marks.table]


def _families(features: Features) -> tuple[socket.AddressFamily, ...]:
    """Those that loopback speaks here: where it does not, no route can be and no packet arrives."""
    return (socket.AF_INET, socket.AF_INET6) if features.ipv6 and _loopback_has_ipv6() else (socket.AF_INET,)


def _loopback_has_ipv6() -> bool:
    with open("/proc/sys/net/ipv6/conf/lo/disable_ipv6", encoding="ascii") as file:  # noqa: PTH123
        return file.read().strip() == "0"


def _remove_policies(routing: Routing, marks: Marks, features: Features) -> None:
    for family in (socket.AF_INET, socket.AF_INET6) if features.ipv6 else (socket.AF_INET,):
        for rule in _ours(routing, family, marks):
            routing.remove_rule(family, rule)
        if routing.has_route(family, marks.table):
            routing.remove_route(family, marks.table)


def _has_tables() -> bool:
    """Where nothing is to be removed, not to ask for it spares two waits, of milliseconds, for the kernel to let go of it."""
    return any(comment_of(TABLE, family) is not None for family in Family)


def _is_loaded(text: str) -> bool:
    """The table's comment tells which text was loaded: a text is loaded whole or not at all."""
    return comment_of(TABLE) == loaded_as(text)
