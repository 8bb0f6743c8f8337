"""A namespaced user cannot widen what a cluster policy denies, whatever the namespaced policies say.

Flows are decided by the sidecar's own code.
"""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from samples.policy_objects import policy, trust_policy
from weir_operator.cluster.facts import NamespaceFacts
from weir_operator.cluster.policies import Policies
from weir_sidecar.contract.config import Action
from weir_sidecar.contract.flow import Decision, Protocol
from weir_sidecar.core.policy import Policy
from weir_sidecar.core.verdict import FlowFacts

NAMESPACE = NamespaceFacts("shop", {})
HOSTS = ["a.example", "b.a.example", "c.example"]
ADDRESSES = ["192.0.2.1", "198.51.100.7", "2001:db8::1"]
REF = {"name": "t", "kind": "ClusterTrustPolicy"}
JA4 = "t13d1516h2_8daaf6152771_02713d6af862"


def some(values):
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


actions = st.sampled_from([action.value for action in Action])
apps = st.lists(
    st.fixed_dictionaries({}, optional={"uids": some([0, "1-9"]), "ja4": st.just([JA4])}), min_size=1, max_size=2
)
matches = st.fixed_dictionaries(
    {},
    optional={
        "hosts": some([*HOSTS, "*.a.example", "*"]),
        "cidrs": some(["192.0.2.0/24", "0.0.0.0/0", "::/0"]),
        "ports": some([53, 443, "1-1024"]),
        "protocols": some([protocol.value for protocol in Protocol]),
        "apps": apps,
    },
)
rules = st.lists(st.fixed_dictionaries({"action": actions, "match": matches}), max_size=3)
selectors = st.sampled_from([None, {}, {"matchLabels": {"app": "web"}}, {"matchLabels": {"app": "db"}}])
captures = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["TPROXY", "Redirect"]),
        "ports": some([443, 53, "1-65535"]),
        "exclude": st.fixed_dictionaries(
            {}, optional={"ports": some([443]), "cidrs": some(["0.0.0.0/0", "::/0"]), "uids": some([0])}
        ),
        "dns": st.fixed_dictionaries({}, optional={"capture": st.booleans(), "server": st.just("192.0.2.53")}),
        "quic": st.sampled_from(["Allow", "Reject"]),
        "otherUDP": st.sampled_from(["Allow", "Deny", "Ignore"]),
        "otherProtocols": st.booleans(),
    },
)
specs = st.fixed_dictionaries(
    {"rules": rules},
    optional={
        "podSelector": selectors.filter(bool),
        "priority": st.integers(0, 10000),
        "capture": captures,
        "failureMode": st.sampled_from(["Open", "Closed"]),
        "startup": st.sampled_from(["Open", "Hold"]),
        "verifyAddress": st.sampled_from(["Ignore", "Log", "Deny"]),
        "defaultAction": actions,
        "logging": st.fixed_dictionaries(
            {}, optional={"sample": st.sampled_from([0, 0.5, 1]), "headers": st.sampled_from(["None", "All"])}
        ),
        "trustPolicyRef": st.just({"name": "t"}),
    },
)
trusts = st.fixed_dictionaries({}, optional={"neverIntercept": some([*HOSTS, "*"])})
flows = st.builds(
    FlowFacts,
    protocol=st.sampled_from(list(Protocol)),
    address=st.sampled_from(ADDRESSES),
    port=st.sampled_from([53, 443, 2000]),
    host=st.none() | st.sampled_from(HOSTS),
    named_by_client=st.booleans(),
    address_from_dns=st.sampled_from([None, True, False]),
    uid=st.sampled_from([None, 0, 5, 70]),
    ja4=st.sampled_from([None, JA4]),
)


def sample(config):
    return 1.0 if config.logging is UNSET else config.logging.sample


@given(st.lists(specs, min_size=1, max_size=3), st.lists(specs, max_size=3), trusts, st.lists(flows, max_size=10))
def test_what_cluster_policies_deny_stays_denied_and_captured(cluster, namespaced, trust, facts):
    above = [policy(f"c{number}", None, **{**spec, "trustPolicyRef": REF}) for number, spec in enumerate(cluster)]
    below = [policy(f"n{number}", **spec) for number, spec in enumerate(namespaced)]
    above.append(trust_policy("t", None))
    alone = Policies.of(above).plan(NAMESPACE, {"app": "web"})
    both = Policies.of([*above, *below, trust_policy("t", **trust)])
    assert both.problems == {}
    if alone is None:
        return
    together = both.plan(NAMESPACE, {"app": "web"})
    assert together.config.capture == alone.config.capture
    assert together.config.failure_mode == alone.config.failure_mode
    assert together.config.startup == alone.config.startup
    assert together.config.verify_address == alone.config.verify_address
    assert sample(together.config) == sample(alone.config)
    before, after = Policy(alone.config), Policy(together.config)
    for flow in facts:
        if before.decide(flow).decision is Decision.DENY:
            assert after.decide(flow).decision is Decision.DENY


@given(st.lists(specs, min_size=1, max_size=3), st.lists(flows, max_size=10))
def test_a_cluster_that_denies_everything_denies_everything(namespaced, facts):
    below = [policy(f"n{number}", **spec) for number, spec in enumerate(namespaced)]
    made = Policies.of([policy("c", None, defaultAction="Deny"), *below]).plan(NAMESPACE, {"app": "web"})
    decide = Policy(made.config).decide
    assert {decide(flow).decision for flow in facts} <= {Decision.DENY}


def test_a_namespace_cannot_spare_a_false_name_by_naming_its_address():
    above = policy("c", None, verifyAddress="Deny")
    below = policy("n", rules=[{"action": "Passthrough", "match": {"cidrs": ["0.0.0.0/0"]}}])
    false = FlowFacts(Protocol.TLS, "192.0.2.1", 443, "a.example", named_by_client=True, address_from_dns=False)
    plan = Policies.of([above, below]).plan(NAMESPACE, {})
    assert Policy(plan.config).decide(false).decision is Decision.DENY
    assert Policy(plan.config).decide(replace(false, host=None, named_by_client=False)).decision is Decision.PASSTHROUGH
    above["spec"]["rules"] = below["spec"]["rules"]
    plan = Policies.of([above]).plan(NAMESPACE, {})
    assert Policy(plan.config).decide(false).decision is Decision.PASSTHROUGH
