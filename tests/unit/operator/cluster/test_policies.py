"""Which policies make a pod's plan, in which order, and what becomes of those that cannot be used."""

import pytest

from samples.policy_objects import policy, trust_policy
from weir_operator.cluster.facts import NamespaceFacts
from weir_operator.cluster.policies import Policies, PolicyKey
from weir_operator.compile import AUTHORITY_DIR, Injection
from weir_sidecar.contract.config import (
    Action,
    FailureMode,
    OnInvalidCertificate,
    SidecarConfig,
    Startup,
    VerifyAddress,
)
from weir_sidecar.contract.config import Capture as ConfigCapture
from weir_sidecar.contract.http import Credential

SHOP = NamespaceFacts("shop", {"kubernetes.io/metadata.name": "shop", "team": "a"})
BANK = NamespaceFacts("bank", {"team": "b"})
WEB = {"app": "web"}
ROOT = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"


def plan(*objects, namespace=SHOP, labels=WEB):
    return Policies.of(objects).plan(namespace, labels)


def names(made):
    return [str(key) for key in made.policies]


def rule(name, action="Deny", **match):
    return {"name": name, "action": action, "match": match}


def test_nothing_is_captured_until_a_policy_selects_it():
    assert plan() is None
    assert plan(trust_policy("t")) is None
    assert plan(policy("p", podSelector={"matchLabels": {"app": "db"}})) is None
    assert plan(policy("p", "bank")) is None
    assert plan(policy("p", None, namespaceSelector={"matchLabels": {"team": "b"}})) is None


def test_an_empty_policy_selects_all_pods_of_its_reach_and_changes_nothing_of_the_config():
    made = plan(policy("p"), labels={})
    assert made.config == SidecarConfig(revision=made.config.revision)
    assert (made.injection, made.cluster, made.trust) == (Injection(), False, ())
    assert made.policies == (PolicyKey("InterceptionPolicy", "shop", "p"),)
    assert plan(policy("p", None), namespace=BANK).cluster


def test_the_namespace_of_a_cluster_policy_is_chosen_by_labels_which_may_change():
    policies = Policies.of([policy("p", None, namespaceSelector={"matchLabels": {"team": "a"}})])
    assert policies.plan(SHOP, WEB)
    assert not policies.plan(NamespaceFacts("shop", {}), WEB)
    assert policies.plan(SHOP, WEB)


def test_cluster_policies_first_then_priority_then_name():
    made = plan(
        policy("a", priority=10),
        policy("c"),
        policy("b"),
        policy("z", None, priority=2000),
        policy("y", None, priority=2000),
        policy("other", "bank"),
    )
    assert names(made) == [
        "ClusterInterceptionPolicy/y",
        "ClusterInterceptionPolicy/z",
        "InterceptionPolicy/shop/a",
        "InterceptionPolicy/shop/b",
        "InterceptionPolicy/shop/c",
    ]


def test_rules_are_joined_in_that_order_under_policy_and_rule():
    made = plan(policy("n", priority=0, rules=[rule("x", "Passthrough")]), policy("c", None, rules=[rule("y")]))
    assert [one.name for one in made.config.rules] == ["c/y", "n/x"]


def test_a_namespaced_policy_alone_says_everything():
    made = plan(
        policy("p", failureMode="Closed", startup="Open", verifyAddress="Deny", capture={"quic": "Allow"})
    )  # fmt: skip
    assert made.config.failure_mode is FailureMode.CLOSED
    assert made.config.startup is Startup.OPEN
    assert made.config.verify_address is VerifyAddress.DENY
    assert made.config.capture.quic == "Allow"


def test_below_a_cluster_policy_a_namespaced_one_has_no_say_in_capture_and_failure():
    wide = policy(
        "p",
        failureMode="Closed",
        startup="Open",
        verifyAddress="Ignore",
        defaultAction="Deny",
        capture={"mode": "Redirect", "exclude": {"cidrs": ["0.0.0.0/0"]}, "ports": [1], "dns": {"capture": False}},
        rules=[rule("r")],
    )
    made = plan(wide, policy("c", None))
    assert made.config == SidecarConfig(
        revision=made.config.revision, default_action=Action.DENY, rules=made.config.rules, capture=ConfigCapture()
    )
    assert [one.name for one in made.config.rules] == ["p/r"]
    assert Policies.of([wide, policy("c", None)]).problems == {}


def test_a_default_deny_of_the_cluster_is_not_undone_by_rules_of_a_namespace():
    closed = policy("c", None, defaultAction="Deny", rules=[rule("ok", "Passthrough", hosts=["ok.example"])])
    later = policy("d", None, defaultAction="Intercept")
    made = plan(closed, later, policy("p", rules=[rule("all", "Passthrough")]))
    assert [one.name for one in made.config.rules] == ["c/ok"]
    assert made.config.default_action is Action.DENY


def test_the_first_cluster_policy_that_gives_a_default_decides_whether_a_namespace_may_add_rules():
    closed = policy("d", None, defaultAction="Deny")
    opened = policy("c", None, defaultAction="Intercept")
    made = plan(opened, closed, policy("p", rules=[rule("all", "Passthrough")]))
    assert [one.name for one in made.config.rules] == ["p/all"]
    assert made.config.default_action is Action.INTERCEPT


def never(name, namespace="shop"):
    return trust_policy(name, namespace, neverIntercept=[f"{name}.example"])


def hosts(made):
    return [host.removesuffix(".example") for host in made.config.trust.never_intercept]


def test_without_references_all_trust_policies_of_cluster_and_namespace_take_part():
    made = plan(policy("p"), never("b"), never("a"), never("z", None), never("other", "bank"))
    assert hosts(made) == ["z", "a", "b"]
    assert [str(key) for key in made.trust] == ["ClusterTrustPolicy/z", "TrustPolicy/shop/a", "TrustPolicy/shop/b"]


def test_with_references_only_those_take_part_in_the_order_of_the_policies_cluster_ones_first():
    objects = [
        policy("p", trustPolicyRef={"name": "a"}),
        policy("q", trustPolicyRef={"name": "z", "kind": "ClusterTrustPolicy"}),
        policy("r", trustPolicyRef={"name": "a"}),
        policy("s"),
        *(never("a"), never("b"), never("z", None), never("a", "bank")),
    ]
    assert hosts(plan(*objects)) == ["z", "a"]


def test_a_namespace_that_refers_to_its_own_does_not_put_the_clusters_out_of_play():
    strict = trust_policy("c", None, upstream={"onInvalidCertificate": "Reject"})
    loose = trust_policy("own", upstream={"onInvalidCertificate": "Passthrough"})
    made = plan(policy("p", trustPolicyRef={"name": "own"}), strict, loose, never("other"))
    assert [str(key) for key in made.trust] == ["ClusterTrustPolicy/c", "TrustPolicy/shop/own"]
    assert made.config.trust.upstream.on_invalid_certificate is OnInvalidCertificate.REJECT


def test_a_reference_leads_to_the_policys_own_namespace():
    policies = Policies.of([policy("p", trustPolicyRef={"name": "a"}), never("a", "bank")])
    assert "TrustPolicy/shop/a, which is not there" in policies.problems[policies.keys()[0]][0]


@pytest.mark.parametrize(
    ("ref", "others", "said"),
    [
        ({"name": "lost"}, [], "spec.trustPolicyRef: found TrustPolicy/shop/lost, which is not there; create it"),
        ({"name": "bad"}, [trust_policy("bad", ca={"source": "Secret"})], "which cannot be used itself"),
        ({"name": "bad"}, [trust_policy("bad", ca={"source": "Vault"})], "which cannot be used itself"),
    ],
)
def test_a_policy_whose_reference_leads_nowhere_applies_all_the_same_and_tells(ref, others, said):
    objects = [policy("p", trustPolicyRef=ref, rules=[rule("r")]), never("z", None), *others]
    policies = Policies.of(objects)
    made = policies.plan(SHOP, WEB)
    assert [one.name for one in made.config.rules] == ["p/r"]
    assert hosts(made) == ["z"]
    assert said in policies.problems[PolicyKey("InterceptionPolicy", "shop", "p")][0]


def test_a_cluster_policy_refers_to_cluster_trust_policies_only():
    policies = Policies.of([policy("p", None, trustPolicyRef={"name": "a"}), never("a")])
    (text,) = policies.problems[PolicyKey("ClusterInterceptionPolicy", None, "p")]
    assert "found TrustPolicy, which lies in a namespace; allowed in a ClusterInterceptionPolicy: Cluster" in text
    assert policies.plan(SHOP, WEB)


def intercept(**request):
    return {"action": "Intercept", "match": {"hosts": ["a.test"]}, "http": [request]}


def keyed(name, key="k"):
    return [intercept(credentialFrom={"header": "A", "secret": {"name": name, "key": key}})]


def test_the_secrets_of_all_policies_are_mounted_once_each():
    made = plan(policy("p", rules=keyed("s")), policy("q", rules=[*keyed("s"), *keyed("s", "j")]))
    assert made.injection.credentials == (("s", "k"), ("s", "j"))
    assert {rule.http[0].credential for rule in made.config.rules} == {
        Credential("a", "/run/weir/credentials/s/k", limited=True),
        Credential("a", "/run/weir/credentials/s/j", limited=True),
    }


def test_a_secret_that_only_ignored_rules_name_is_not_mounted():
    closed = policy("c", None, defaultAction="Deny", rules=keyed("allowed"))
    assert plan(closed, policy("p", rules=keyed("ignored"))).injection.credentials == (("allowed", "k"),)


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        (
            policy("p", rules=[{"action": "Deny", "http": [{}]}]),
            "spec.rules[0].http: found Deny; rules on requests need the action Intercept",
        ),
        (
            policy("p", rules=[intercept(credentialFrom={"header": "A", "file": "/run/weir/token/token"})]),
            "spec.rules[0].http[0].credentialFrom.file: only one machine has it; allowed in a cluster: secret",
        ),
        (policy("p", capture={"inbound": True}), "spec.capture.inbound: capture of inbound flows is not supported"),
        (
            policy("p", rules=[rule("r"), rule("s", apps=[{"uids": [1]}, {"containers": ["a"]}])]),
            "spec.rules[1].match.apps[1].containers: telling a pod's containers apart is not supported",
        ),
        (policy("p", rules=[rule("r"), rule("r")]), "spec.rules[1].name: found 'r', the name of spec.rules[0]"),
        (policy("p", podSelector={"matchLabel": {}}), "spec.podSelector.matchLabel: unknown field"),
        (
            policy("p", None, namespaceSelector={"matchExpressions": [{"key": "a", "operator": "In"}]}),
            "spec.namespaceSelector.matchExpressions[0].values: found []",
        ),
        (policy("p", priority=10001), "spec.priority: found the number 10001"),
    ],
)
def test_a_policy_that_cannot_be_used_contributes_nothing_and_is_told(obj, said):
    policies = Policies.of([obj, policy("good")])
    key, good = policies.keys()
    assert said in policies.problems[key][0]
    assert set(policies.problems) == {key}
    assert policies.plan(SHOP, WEB).policies == (good,)
    assert not policies.selects(key, SHOP, WEB)
    assert policies.generation(key) == 3


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        (trust_policy("t", ca={"source": "Secret"}), "spec.ca.secretRef: missing"),
        (trust_policy("t", upstream={"roots": [{"file": "a"}]}), "roots[0].file: only one machine has it"),
        (trust_policy("t", upstream={"roots": [{"file": "a", "pem": "b"}]}), "roots[0]: allowed: exactly one of"),
        (trust_policy("t", upstream={"systemRoots": False}), "systemRoots: found false without roots"),
        (trust_policy("t", failOpen={"ttl": "2h", "maxTTL": "1h"}), "maxTTL: found 3600 s"),
    ],
)
def test_a_trust_policy_that_cannot_be_used_contributes_nothing_and_is_told(obj, said):
    policies = Policies.of([obj, policy("p")])
    key = policies.keys()[0]
    assert [said in text for text in policies.problems[key]] == [True]
    assert policies.plan(SHOP, WEB).trust == ()


def test_what_only_a_cluster_has_is_compiled():
    trust = trust_policy(
        "t",
        ca={"source": "Secret", "secretRef": {"name": "ca"}},
        upstream={"roots": [{"configMap": {"name": "roots", "key": "a.pem"}}, {"pem": ROOT}]},
        injection={"containers": ["app"]},
    )
    made = plan(policy("p"), trust)
    assert made.config.trust.authority_dir == AUTHORITY_DIR
    assert made.config.trust.upstream.roots_files == ("/run/weir/roots/roots/a.pem",)
    assert made.config.trust.upstream.roots_pem == (ROOT,)
    assert made.injection == Injection(secret="ca", config_maps=("roots",), containers=("app",))


def test_what_has_no_effect_is_noticed():
    objects = [policy("p", trustPolicyRef={"name": "a"}), never("a"), never("b"), never("z", None)]
    policies = Policies.of([*objects, policy("q", "bank", namespaceSelector={}, trustPolicyRef={"name": "x"})])
    # The lost reference of q counts as not given, so that the cluster's trust policies may still be asked.
    assert {str(key): [text.split(";")[0][:40] for text in said] for key, said in policies.notices.items()} == {
        "TrustPolicy/shop/b": ["no effect: no policy refers to it, and n"],
        "InterceptionPolicy/bank/q": ["spec.namespaceSelector: no effect: the po"[:40]],
    }
    assert {str(key) for key in Policies.of(objects).notices} == {"TrustPolicy/shop/b", "ClusterTrustPolicy/z"}
    assert Policies.of([*objects, policy("r", None)]).notices == {}


def test_selects():
    policies = Policies.of([policy("p", podSelector={"matchLabels": WEB}), policy("c", None), never("t")])
    namespaced, cluster, trust = policies.keys()
    assert policies.selects(namespaced, SHOP, WEB)
    assert not policies.selects(namespaced, SHOP, {})
    assert not policies.selects(namespaced, BANK, WEB)
    assert policies.selects(cluster, BANK, {})
    assert not policies.selects(trust, SHOP, WEB)
    unknown = PolicyKey("InterceptionPolicy", "shop", "gone")
    assert not policies.selects(unknown, SHOP, WEB)
    assert policies.generation(unknown) == 0


def test_the_revision_says_what_the_sidecar_does_and_nothing_else():
    here, there = policy("p", rules=[rule("r")]), policy("p", rules=[rule("r")], priority=3)
    there["metadata"] |= {"generation": 9, "resourceVersion": "99", "labels": {"a": "b"}}
    one, same, other = plan(here), plan(there), plan(policy("p", rules=[rule("s")]))
    assert one.config.revision == same.config.revision != other.config.revision
    assert len(one.config.revision) == 16
    assert (one.config.generation, one.config.workload, one.config.stream) == (0, "", None)


def test_pods_with_the_same_policies_share_one_plan():
    policies = Policies.of([policy("p"), policy("c", None), policy("q", "bank")])
    assert policies.plan(SHOP, WEB) is policies.plan(SHOP, {"app": "db"})
    assert policies.plan(SHOP, WEB) is not policies.plan(BANK, WEB)


def test_pods_of_two_namespaces_share_no_trust_policy():
    policies = Policies.of([policy("c", None), never("a"), never("b", "bank")])
    assert hosts(policies.plan(SHOP, WEB)) == ["a"]
    assert hosts(policies.plan(BANK, WEB)) == ["b"]


def test_a_change_is_seen_and_what_did_not_change_is_not_read_again(monkeypatch):
    objects = [policy("p"), policy("q", defaultAction="Deny")]
    first = Policies.of(objects)
    read = []
    monkeypatch.setattr("weir_operator.cluster.policies.read_object", read.append)
    gone = first.followed_by(objects[:1])
    assert read == []
    assert gone.plan(SHOP, WEB).config.default_action is Action.INTERCEPT
    assert first.plan(SHOP, WEB).config.default_action is Action.DENY
    monkeypatch.undo()
    changed = first.followed_by([objects[0], policy("q", defaultAction="Passthrough")])
    assert changed.plan(SHOP, WEB).config.default_action is Action.PASSTHROUGH


def test_a_pod_that_no_policy_selects_any_more_is_let_through():
    made = Policies.of([]).unselected()
    assert made.config.default_action is Action.PASSTHROUGH
    assert made.config.rules == ()
    assert not made.config.capture.dns.strip_ech
    assert made.config.revision
