"""Puts capture in place in the current network namespace, checks it, and takes it away.

Order: loopback up, policy routes, rules last; teardown in reverse. So there is never a rule that marks packets for a
route that is not there. Applying twice changes nothing; removing leaves nothing (loopback stays up, pods need it).
No sysctl is set: packets come back over loopback with the route they were given, so rp_filter, route_localnet,
src_valid_mark and ip_forward are not asked (tests/netns/test_switch.py holds them to it).
"""

import msgspec

from weir_sidecar.contract.config import CaptureMode, Marks, SidecarConfig
from weir_sidecar.netfilter.features import Features
from weir_sidecar.netfilter.render import TABLE, loaded_as, render, render_removal
from weir_sidecar.netsetup.commands import query, run
from weir_sidecar.netsetup.features import detect

_LOAD_ADVICE = "nothing was loaded; run `weir doctor` to see what this kernel lacks"


class _Policy(msgspec.Struct, frozen=True):
    """The policy rule and the route of one family. The table's number is the rule's priority too."""

    flag: str
    marks: Marks

    @property
    def rule(self) -> tuple[str, ...]:
        table = str(self.marks.table)
        return ("priority", table, "fwmark", f"{self.marks.mark:#x}/{self.marks.mask:#x}", "lookup", table)

    def rules(self) -> list[str]:
        """Marks of the rules at our priority that look up our table, as the kernel has them."""
        table = str(self.marks.table)
        return [
            f"{row.get('fwmark', '0')}/{row.get('fwmask', '0xffffffff')}"
            for row in query("ip", "-j", self.flag, "rule", "show")
            if str(row["priority"]) == table and str(row.get("table")) == table
        ]

    def has_route(self) -> bool:
        rows = query("ip", "-j", self.flag, "route", "show", "table", "all")
        return any(str(row.get("table")) == str(self.marks.table) for row in rows)


def apply(config: SidecarConfig, known: Features | None = None) -> None:
    """Capture as the config says. Raises `CaptureError`, and `RulesetError` for a config no rule can say.

    Who sets up many pods of one kernel looks once at what it can do, and gives it as `known`.
    """
    features = known or detect()
    text = render(config, features)
    if config.capture.mode is CaptureMode.TPROXY:
        run("ip", "link", "set", "dev", "lo", "up")
        for policy in _policies(config.marks, features):
            _add(policy)
    if not _is_loaded(text):
        run("nft", "--file", "-", stdin=text, advice=_LOAD_ADVICE)
    if config.capture.mode is not CaptureMode.TPROXY:
        _remove_policies(config.marks, features)


def remove(config: SidecarConfig) -> None:
    """Take away all that `apply` made, whatever config it was called with, if its marks were these."""
    features = detect()
    run("nft", "--file", "-", stdin=render_removal(features))
    _remove_policies(config.marks, features)


def check(config: SidecarConfig, known: Features | None = None) -> tuple[str, ...]:
    """What is not as `apply` would leave it, in words; empty when all is. Changes nothing. Raises `CaptureError`."""
    features = known or detect()
    missing = (
        [] if _is_loaded(render(config, features)) else [f"nft table inet {TABLE} is missing or of another config"]
    )
    if config.capture.mode is CaptureMode.TPROXY:
        for policy in _policies(config.marks, features):
            if policy.rules() != [policy.rule[3]]:
                missing.append(f"ip {policy.flag} rule {' '.join(policy.rule)} is missing")
            if not policy.has_route():
                missing.append(f"ip {policy.flag} route local default dev lo table {config.marks.table} is missing")
    return tuple(missing)


def _policies(marks: Marks, features: Features) -> list[_Policy]:
    """Of the families that loopback speaks here: where it does not, no route can be and no packet arrives."""
    return [_Policy("-4", marks), *([_Policy("-6", marks)] if features.ipv6 and _loopback_has_ipv6() else [])]


def _loopback_has_ipv6() -> bool:
    with open("/proc/sys/net/ipv6/conf/lo/disable_ipv6", encoding="ascii") as file:  # noqa: PTH123
        return file.read().strip() == "0"


def _add(policy: _Policy) -> None:
    run("ip", policy.flag, "route", "replace", "local", "default", "dev", "lo", "table", str(policy.marks.table))
    found = policy.rules()
    if policy.rule[3] not in found:
        run("ip", policy.flag, "rule", "add", *policy.rule)


def _remove_policies(marks: Marks, features: Features) -> None:
    table = str(marks.table)
    for flag in ("-4", "-6") if features.ipv6 else ("-4",):
        policy = _Policy(flag, marks)
        for mark in policy.rules():
            run("ip", flag, "rule", "del", "priority", table, "fwmark", mark, "lookup", table)
        if policy.has_route():
            run("ip", flag, "route", "flush", "table", table)


def _is_loaded(text: str) -> bool:
    """The table's comment tells which text was loaded; where there is no table, listing it fails."""
    tables = run("nft", "list", "tables", "inet")
    return f"table inet {TABLE}" in tables.splitlines() and loaded_as(text) in run(
        "nft", "list", "table", "inet", TABLE
    )
