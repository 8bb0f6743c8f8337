"""What rules decide: matching, precedence, neverIntercept, and verifyAddress."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.contract.config import (
    Action,
    ConfigError,
    IDRange,
    Match,
    PortRange,
    Rule,
    SidecarConfig,
    Trust,
    VerifyAddress,
)
from weir_sidecar.contract.flow import Decision, Protocol, Reason
from weir_sidecar.core.hosts import HostIndex
from weir_sidecar.core.policy import Policy
from weir_sidecar.core.verdict import FlowFacts, Verdict

D, I, P = Action.DENY, Action.INTERCEPT, Action.PASSTHROUGH  # noqa: E741


def policy(*rules, default=I, never=(), verify=VerifyAddress.LOG):
    """A policy of (name, match, action) rules."""
    return Policy(
        SidecarConfig(
            rules=tuple(Rule(name, match, action) for name, match, action in rules),
            default_action=default,
            verify_address=verify,
            trust=Trust(never_intercept=tuple(never)),
        )
    )


def flow(host=None, address="192.0.2.1", port=443, protocol=Protocol.TLS, **more):
    return FlowFacts(protocol, address, port, host, **more)


def decided(match, facts):
    """Whether a Deny rule with this match takes the flow."""
    return policy(("only", match, D)).decide(facts).decision is Decision.DENY


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("example.com", "example.com", True),
        ("example.com", "a.example.com", False),
        ("example.com", "notexample.com", False),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "b.a.example.com", True),
        ("*.example.com", "aexample.com", False),
        ("*.com", "example.com", True),
        ("*", "anything", True),
        ("*", "any.thing", True),
    ],
)
def test_host_patterns(pattern, host, matches):
    assert decided(Match(hosts=(pattern,)), flow(host)) is matches


@given(
    st.lists(st.sampled_from(["*", "a", "b.a", "*.a", "*.b.a", "*.c", "c.b.a"])),
    st.sampled_from(["a", "b.a", "c.b.a", "d", "x.c"]),
)
def test_host_index_agrees_with_trying_each_pattern(patterns, host):
    def matches(pattern):
        return pattern in {"*", host} or (pattern.startswith("*.") and host.endswith(pattern[1:]))

    index = HostIndex((number, [pattern]) for number, pattern in enumerate(patterns))
    assert set(index.find(host)) == {number for number, pattern in enumerate(patterns) if matches(pattern)}


@pytest.mark.parametrize("pattern", ["*", "*.example.com", "example.com"])
def test_a_rule_with_hosts_does_not_match_a_flow_without_a_name(pattern):
    assert not decided(Match(hosts=(pattern,)), flow(None))


@pytest.mark.parametrize(
    ("cidr", "address", "matches"),
    [
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("192.0.2.7/32", "192.0.2.7", True),
        ("0.0.0.0/0", "8.8.8.8", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "8.8.8.8", False),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
    ],
)
def test_networks(cidr, address, matches):
    assert decided(Match(cidrs=(cidr,)), flow(address=address)) is matches


@pytest.mark.parametrize(
    ("match", "facts", "matches"),
    [
        (Match(ports=(PortRange(80, 90),)), flow(port=80), True),
        (Match(ports=(PortRange(80, 90),)), flow(port=90), True),
        (Match(ports=(PortRange(80, 90),)), flow(port=91), False),
        (Match(protocols=("tls",)), flow(), True),
        (Match(protocols=("http", "tcp")), flow(), False),
        (Match(uids=(IDRange(1000, 1999),)), flow(uid=1500), True),
        (Match(uids=(IDRange(0, 0),)), flow(uid=0), True),
        (Match(uids=(IDRange(1000, 1999),)), flow(uid=999), False),
        (Match(uids=(IDRange(1000, 1999),)), flow(uid=None), False),
        (Match(ja4=("x",)), flow(ja4="x"), True),
        (Match(ja4=("x",)), flow(ja4="y"), False),
        (Match(ja4=("x",)), flow(ja4=None), False),
        (Match(), flow(), True),
        (Match(hosts=("a",), ports=(PortRange(443, 443),)), flow("a"), True),
        (Match(hosts=("a",), ports=(PortRange(443, 443),)), flow("a", port=80), False),
        (Match(hosts=("a", "b"), cidrs=("10.0.0.0/8",)), flow("b", address="10.0.0.1"), True),
        (Match(hosts=("a", "b"), cidrs=("10.0.0.0/8",)), flow("b", address="11.0.0.1"), False),
    ],
)
def test_all_parts_must_hold_and_any_entry_suffices(match, facts, matches):
    assert decided(match, facts) is matches


def test_the_first_matching_rule_decides_whether_it_names_hosts_or_not():
    asked = policy(
        ("exact", Match(hosts=("a.example",)), P),
        ("all", Match(ports=(PortRange(443, 443),)), D),
        ("late", Match(hosts=("b.example",)), P),
    )
    assert asked.decide(flow("a.example")) == Verdict(Decision.PASSTHROUGH, Reason.RULE, "exact")
    assert asked.decide(flow("b.example")) == Verdict(Decision.DENY, Reason.RULE, "all")
    assert asked.decide(flow("b.example", port=80)) == Verdict(Decision.PASSTHROUGH, Reason.RULE, "late")
    assert asked.decide(flow("c.example", port=80)) == Verdict(Decision.INTERCEPT, Reason.DEFAULT)


@pytest.mark.parametrize(
    ("action", "protocol", "decision", "reason"),
    [
        (I, Protocol.TLS, Decision.INTERCEPT, None),
        (I, Protocol.HTTP, Decision.INTERCEPT, None),
        (I, Protocol.TCP, Decision.PASSTHROUGH, Reason.NOT_TLS_OR_HTTP),
        (I, Protocol.UDP, Decision.PASSTHROUGH, None),
        (I, Protocol.DNS, Decision.PASSTHROUGH, None),
        (P, Protocol.TLS, Decision.PASSTHROUGH, None),
        (P, Protocol.TCP, Decision.PASSTHROUGH, None),
        (D, Protocol.TLS, Decision.DENY, None),
        (D, Protocol.TCP, Decision.DENY, None),
        (D, Protocol.UDP, Decision.DENY, None),
        (D, Protocol.DNS, Decision.DENY, None),
    ],
)
def test_what_an_action_means_for_each_protocol(action, protocol, decision, reason):
    facts = flow("a.example", protocol=protocol)
    by_rule = policy(("r", Match(hosts=("a.example",)), action), default=P)
    assert by_rule.decide(facts) == Verdict(decision, reason or Reason.RULE, "r")
    assert policy(default=action).decide(facts) == Verdict(decision, reason or Reason.DEFAULT)


def test_never_intercept_spares_interception_and_nothing_else():
    asked = policy(
        ("deny", Match(hosts=("evil.bank.example",)), D),
        ("pass", Match(hosts=("pass.bank.example",)), P),
        ("see", Match(hosts=("see.bank.example",)), I),
        never=["*.bank.example"],
    )
    assert asked.decide(flow("evil.bank.example")).decision is Decision.DENY
    assert asked.decide(flow("pass.bank.example")) == Verdict(Decision.PASSTHROUGH, Reason.RULE, "pass")
    assert asked.decide(flow("see.bank.example")) == Verdict(Decision.PASSTHROUGH, Reason.NEVER_INTERCEPT, "see")
    assert asked.decide(flow("www.bank.example")) == Verdict(Decision.PASSTHROUGH, Reason.NEVER_INTERCEPT)
    assert asked.decide(flow("bank.example")).decision is Decision.INTERCEPT
    assert asked.decide(flow(None)).decision is Decision.INTERCEPT


@pytest.mark.parametrize(
    ("match", "action", "resolves"),
    [
        (Match(hosts=("a.example",)), P, True),
        (Match(hosts=("a.example",), ports=(PortRange(443, 443),)), I, True),
        (Match(hosts=("a.example",), protocols=("tls",)), I, True),
        (Match(hosts=("a.example",), cidrs=("10.0.0.0/8",)), I, True),
        (Match(hosts=("a.example",), ja4=("x",)), I, True),
        (Match(hosts=("a.example",), uids=(IDRange(7, 7),)), I, False),
        (Match(hosts=("b.example",)), P, False),
        (Match(ports=(PortRange(443, 443),)), P, False),
        (Match(protocols=("dns",)), P, True),
        (Match(hosts=("a.example",), protocols=("dns",), cidrs=("10.0.0.0/8",)), P, False),
    ],
)
def test_a_host_that_may_be_reached_may_be_resolved(match, action, resolves):
    query = flow("a.example", port=53, protocol=Protocol.DNS, uid=8)
    assert (policy(("r", match, action), default=D).decide(query).decision is Decision.PASSTHROUGH) is resolves


@pytest.mark.parametrize(
    ("match", "refused"),
    [
        (Match(hosts=("a.example",)), True),
        (Match(hosts=("a.example",), ports=(PortRange(80, 80),)), False),
        (Match(hosts=("a.example",), protocols=("http",)), False),
        (Match(hosts=("a.example",), cidrs=("192.0.2.0/24",)), False),
        (Match(hosts=("a.example",), ja4=("x",)), False),
        (Match(hosts=("a.example",), protocols=("dns", "tls")), True),
        (Match(cidrs=("192.0.2.0/24",)), True),
        (Match(), True),
    ],
)
def test_a_query_is_refused_only_when_every_flow_to_the_host_is_or_the_rule_says_dns(match, refused):
    assert decided(match, flow("a.example", port=53, protocol=Protocol.DNS)) is refused


LIE = {"named_by_client": True, "address_from_dns": False}


def test_a_claimed_name_is_not_trusted_when_verify_address_is_deny():
    asked = policy(("allow", Match(hosts=("a.example",)), I), default=I, verify=VerifyAddress.DENY)
    refused = Verdict(Decision.DENY, Reason.ADDRESS_NOT_FROM_DNS, "allow")
    assert asked.decide(flow("a.example", **LIE)) == refused
    assert asked.decide(flow("a.example", protocol=Protocol.HTTP, port=80, **LIE)) == refused
    assert asked.decide(flow("b.example", **LIE)) == Verdict(Decision.DENY, Reason.ADDRESS_NOT_FROM_DNS)
    for truth in (True, None):
        facts = flow("a.example", named_by_client=True, address_from_dns=truth)
        assert asked.decide(facts).decision is Decision.INTERCEPT
    assert asked.decide(flow("a.example", address_from_dns=False)).decision is Decision.INTERCEPT
    assert asked.decide(flow("192.0.2.1", address="192.0.2.1", **LIE)).decision is Decision.INTERCEPT


def test_a_denied_flow_keeps_its_own_reason():
    asked = policy(("deny", Match(hosts=("a.example",)), D), verify=VerifyAddress.DENY)
    assert asked.decide(flow("a.example", **LIE)) == Verdict(Decision.DENY, Reason.RULE, "deny")


@pytest.mark.parametrize("verify", [VerifyAddress.IGNORE, VerifyAddress.LOG])
def test_log_and_ignore_leave_the_verdict(verify):
    asked = policy(("allow", Match(hosts=("a.example",)), I), default=D, verify=verify)
    assert asked.decide(flow("a.example", **LIE)) == Verdict(Decision.INTERCEPT, Reason.RULE, "allow")


def test_a_rule_about_addresses_rests_on_no_name():
    network = ("net", Match(cidrs=("192.0.2.0/24",)), I)
    verify = VerifyAddress.DENY
    assert policy(network, default=D, verify=verify).decide(flow("x", **LIE)).decision is Decision.INTERCEPT
    # A false name may slip past a rule that denies the true one, and a true one may not be what neverIntercept spares.
    evaded = policy(("deny", Match(hosts=("evil",)), D), network, verify=verify)
    assert evaded.decide(flow("x", **LIE)).reason is Reason.ADDRESS_NOT_FROM_DNS
    spared = policy(network, never=["x"], verify=verify)
    assert spared.decide(flow("x", **LIE)).reason is Reason.ADDRESS_NOT_FROM_DNS
    # Every name matches these as well, but they do not name the address.
    anything = policy(("ports", Match(ports=(PortRange(443, 443),)), I), verify=verify)
    assert anything.decide(flow("x", **LIE)).reason is Reason.ADDRESS_NOT_FROM_DNS


@pytest.mark.parametrize(
    "match", [Match(cidrs=("10.0.0.0/40",)), Match(cidrs=("10.1.0.0/8",)), Match(protocols=("quic",))]
)
def test_a_config_that_cannot_be_compiled_is_a_config_error(match):
    with pytest.raises(ConfigError, match="rule 'r'"):
        policy(("r", match, D))


hosts = st.sampled_from(["*", "a.example", "*.example", "b.a.example", "c"])
ranges = st.sampled_from([PortRange(443, 443), PortRange(1, 100), PortRange(53, 53)])
matches = st.builds(
    Match,
    hosts=st.lists(hosts, max_size=2).map(tuple),
    cidrs=st.lists(st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "::/0", "10.0.0.1/32"]), max_size=2).map(tuple),
    ports=st.lists(ranges, max_size=2).map(tuple),
    protocols=st.lists(st.sampled_from([str(protocol) for protocol in Protocol]), max_size=2).map(tuple),
    uids=st.lists(st.just(IDRange(7, 8)), max_size=1).map(tuple),
    ja4=st.lists(st.just("x"), max_size=1).map(tuple),
)
configs = st.builds(
    SidecarConfig,
    rules=st.lists(st.builds(Rule, name=st.just("r"), match=matches, action=st.sampled_from(Action)), max_size=6).map(
        tuple
    ),
    default_action=st.sampled_from(Action),
    verify_address=st.sampled_from(VerifyAddress),
    trust=st.builds(Trust, never_intercept=st.lists(hosts, max_size=1).map(tuple)),
)
flows = st.builds(
    FlowFacts,
    protocol=st.sampled_from(Protocol),
    address=st.sampled_from(["10.0.0.1", "192.0.2.1", "2001:db8::1", "::ffff:10.0.0.1"]),
    port=st.sampled_from([53, 80, 443]),
    host=st.sampled_from([None, "a.example", "b.a.example", "c", "d"]),
    named_by_client=st.booleans(),
    address_from_dns=st.sampled_from([None, True, False]),
    uid=st.sampled_from([None, 7, 9]),
    ja4=st.sampled_from([None, "x", "y"]),
)


@given(configs, flows)
def test_a_rule_appended_never_changes_what_a_rule_decided(config, facts):
    before = Policy(config).decide(facts)
    longer = Policy(
        SidecarConfig(
            rules=(*config.rules, Rule("last", Match(), Action.DENY)),
            default_action=config.default_action,
            verify_address=config.verify_address,
            trust=config.trust,
        )
    )
    if before.rule is not None:
        assert longer.decide(facts) == before
    else:
        assert longer.decide(facts) == Verdict(Decision.DENY, Reason.RULE, "last")
