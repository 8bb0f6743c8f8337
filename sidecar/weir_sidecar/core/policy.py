"""Policy: what the rules say of one flow. The first rule that matches decides; the default action is the last rule.

Three things are not plain matching, and docs/policy.md tells users so:

- A DNS query is matched by the name it asks for. What a rule says of ports, addresses, protocols or JA4 describes the
  flows that follow, not the query. So a rule that lets some flow to a host through lets its name be resolved, and a Deny
  rule refuses the query only if it refuses every flow to the host. A rule that lists the protocol `dns`, or has no hosts,
  is matched literally, against the resolver's address and port.
- `neverIntercept` turns Intercept into Passthrough.
- `verifyAddress: Deny` refuses what rests on a name that the client claims and DNS never gave this address for.
"""

from ipaddress import IPv6Address, ip_network

import msgspec

from weir_sidecar.contract.config import Action, ConfigError, Match, Rule, SidecarConfig, VerifyAddress
from weir_sidecar.contract.flow import Decision, Protocol, Reason
from weir_sidecar.core.hosts import HostIndex
from weir_sidecar.core.verdict import FlowFacts, Verdict

type _Ranges = tuple[tuple[int, int], ...]
type _Address = tuple[int, int]
"""IP version and the address as a number."""
type _Network = tuple[int, int, int]
"""IP version, mask and network address, as numbers."""

_UNREAD: _Address = (0, 0)


class _Rule(msgspec.Struct, frozen=True):
    """A rule ready to be asked. An empty part holds for every flow."""

    name: str | None
    verdicts: dict[Protocol, Verdict]
    spared: Verdict
    """The verdict when `neverIntercept` names the host."""
    denies: bool
    has_hosts: bool
    protocols: frozenset[Protocol]
    ports: _Ranges
    networks: tuple[_Network, ...]
    uids: _Ranges
    ja4: frozenset[str]
    query: bool | None
    """Whether a DNS query for one of the hosts matches; None: compare literally."""
    rests_on_address: bool
    """No name, true or false, could have led here: nothing to verify."""

    def matches(self, facts: FlowFacts, address: _Address) -> bool:
        """Whether all parts but the hosts hold. `address` is looked at only by a rule with networks."""
        if self.uids and not _within(facts.uid, self.uids):
            return False
        if facts.protocol is Protocol.DNS and self.query is not None:
            return self.query
        return (
            (not self.protocols or facts.protocol in self.protocols)
            and (not self.ports or _within(facts.port, self.ports))
            and (not self.ja4 or facts.ja4 in self.ja4)
            and (not self.networks or _inside(address, self.networks))
        )


class Policy:
    """The rules of a config, compiled once. Raises `ConfigError` for a CIDR or protocol that cannot be read."""

    def __init__(self, config: SidecarConfig) -> None:
        self._rules: list[_Rule] = []
        for rule in (*config.rules, Rule("", Match(), config.default_action)):
            self._rules.append(_compile(rule, self._rules, is_default=len(self._rules) == len(config.rules)))
        self._hosts = HostIndex((number, rule.match.hosts) for number, rule in enumerate(config.rules))
        self._hostless = [number for number, rule in enumerate(self._rules) if not rule.has_hosts]
        self._never = HostIndex([(0, config.trust.never_intercept)])
        self._spares = bool(config.trust.never_intercept)
        self._verifies = config.verify_address is VerifyAddress.DENY

    def decide(self, facts: FlowFacts) -> Verdict:
        """What to do with a flow, before the trust cache is asked."""
        rule = self._first(facts)
        verdict = rule.verdicts[facts.protocol]
        if verdict.decision is Decision.DENY:
            return verdict
        rests_on_address = rule.rests_on_address
        if verdict.decision is Decision.INTERCEPT and facts.host is not None and self._never.find(facts.host):
            verdict, rests_on_address = rule.spared, False
        if self._verifies and not rests_on_address and _is_doubtful(facts):
            return Verdict(Decision.DENY, Reason.ADDRESS_NOT_FROM_DNS, rule.name)
        return verdict

    def _first(self, facts: FlowFacts) -> _Rule:
        rules = self._rules
        candidates = self._hostless
        if facts.host is not None and (named := self._hosts.find(facts.host)):
            candidates = sorted(named + candidates)
        address = _UNREAD
        for number in candidates:
            rule = rules[number]
            if rule.networks and address is _UNREAD:
                address = _parse(facts.address)
            if rule.matches(facts, address):
                return rule
        return rules[-1]


def _compile(rule: Rule, before: list[_Rule], *, is_default: bool) -> _Rule:
    match = rule.match
    try:
        protocols = frozenset(Protocol(word) for word in match.protocols)
        networks = tuple(
            (net.version, int(net.netmask), int(net.network_address))
            for net in (ip_network(text) for text in match.cidrs)
        )
    except ValueError as error:
        raise ConfigError(f"sidecar config: rule {rule.name!r}: {error}") from error
    denies = rule.action is Action.DENY
    name = None if is_default else rule.name
    return _Rule(
        name=name,
        verdicts={protocol: _verdict(rule.action, protocol, name) for protocol in Protocol},
        spared=Verdict(Decision.PASSTHROUGH, Reason.NEVER_INTERCEPT, name),
        denies=denies,
        has_hosts=bool(match.hosts),
        protocols=protocols,
        ports=tuple((ports.first, ports.last) for ports in match.ports),
        networks=networks,
        uids=tuple((uids.first, uids.last) for uids in match.uids),
        ja4=frozenset(match.ja4),
        query=_matches_queries(match, protocols, denies=denies),
        # A false name may also be one that slips past a rule that would have denied the true one.
        rests_on_address=bool(rule.trusts_address and match.cidrs and not match.hosts)
        and not any(r.denies and r.has_hosts for r in before),
    )


def _matches_queries(match: Match, protocols: frozenset[Protocol], *, denies: bool) -> bool | None:
    if not match.hosts or Protocol.DNS in protocols:
        return None
    return not (denies and (protocols or match.ports or match.cidrs or match.ja4))


def _verdict(action: Action, protocol: Protocol, name: str | None) -> Verdict:
    reason = Reason.DEFAULT if name is None else Reason.RULE
    if action is Action.DENY:
        return Verdict(Decision.DENY, reason, name)
    if action is Action.INTERCEPT and protocol in {Protocol.TLS, Protocol.HTTP}:
        return Verdict(Decision.INTERCEPT, reason, name)
    if action is Action.INTERCEPT and protocol is Protocol.TCP:
        return Verdict(Decision.PASSTHROUGH, Reason.NOT_TLS_OR_HTTP, name)
    return Verdict(Decision.PASSTHROUGH, reason, name)


def _is_doubtful(facts: FlowFacts) -> bool:
    """Whether the client claims a name that DNS never gave the address for. An address as its own name is no claim."""
    return facts.named_by_client and facts.address_from_dns is False and facts.host != facts.address


def _within(number: int | None, ranges: _Ranges) -> bool:
    if number is None:
        return False
    for first, last in ranges:  # noqa: SIM110 - on the path of every flow: a generator costs twice as much
        if first <= number <= last:
            return True
    return False


def _inside(address: _Address, networks: tuple[_Network, ...]) -> bool:
    version, number = address
    for net_version, mask, network in networks:  # noqa: SIM110 - as above
        if version == net_version and number & mask == network:
            return True
    return False


def _parse(text: str) -> _Address:
    if ":" not in text:  # four times as fast as ipaddress, for what the kernel printed
        a, b, c, d = text.split(".")
        return 4, int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)
    address = IPv6Address(text)
    if address.ipv4_mapped is not None:  # a dual-stack client's IPv4 flow: rules for IPv4 are meant for it
        return 4, int(address.ipv4_mapped)
    return 6, int(address)
