"""Rulesets as the text of one transaction for `nft -f -`, loadable by nft 1.0.6 and kernel 5.10.

`add table; delete table; table {…}` makes the text idempotent without `destroy`, which both lack.
"""

from collections.abc import Iterator
from hashlib import sha256

from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.netfilter.features import Features
from weir_sidecar.netfilter.objects import Chain, DynamicSet, Family, Rule, Table
from weir_sidecar.netfilter.ruleset import build

TABLE = "weir"


def render(config: SidecarConfig, features: Features) -> str:
    """The text that replaces whatever rules of ours are loaded. Raises `RulesetError`."""
    body = "\n".join(line for table in build(config, features) for line in _table(table))
    label = f"weir {sha256(body.encode()).hexdigest()[:16]}"
    return f'{render_removal(features)}add table inet {TABLE} {{ comment "{label}"; }}\n{body}\n'


def render_removal(features: Features) -> str:
    """The text that removes all rules of ours, whichever config made them, and does nothing where there are none."""
    families = [Family.INET, Family.IP, Family.IP6] if features.ipv6 else [Family.INET, Family.IP]
    return "".join(f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in families)


def loaded_as(text: str) -> str:
    """The comment that the table has once `text`, from `render`, is loaded: it tells one text from another."""
    return text.partition('comment "')[2].partition('"')[0]


def _table(table: Table) -> Iterator[str]:
    yield f"table {table.family} {TABLE} {{"
    for dynamic_set in table.sets:
        yield from _indent(_dynamic_set(dynamic_set))
    for chain in table.chains:
        yield from _indent(_chain(chain))
    yield "}"


def _dynamic_set(dynamic_set: DynamicSet) -> Iterator[str]:
    yield f"set {dynamic_set.name} {{"
    yield f"\ttype {dynamic_set.type}"
    yield f"\tsize {dynamic_set.size}"
    if dynamic_set.timeout_ms is None:
        yield "\tflags dynamic"
    else:
        yield "\tflags dynamic,timeout"
        yield f"\ttimeout {dynamic_set.timeout_ms}ms"
    if dynamic_set.elements:
        yield f"\telements = {{ {', '.join(dynamic_set.elements)} }}"
    yield "}"


def _chain(chain: Chain) -> Iterator[str]:
    yield f"chain {chain.name} {{"
    if chain.hook:
        yield f"\ttype {chain.hook.type} hook {chain.hook.point} priority {chain.hook.priority}; policy accept;"
    for rule in chain.rules:
        yield from _indent(_rule(rule))
    yield "}"


def _rule(rule: Rule) -> Iterator[str]:
    if rule.why:
        yield f"# {rule.why}"
    yield rule.text


def _indent(lines: Iterator[str]) -> Iterator[str]:
    return (f"\t{line}" for line in lines)
