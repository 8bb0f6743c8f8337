"""API objects are read as the same policy in a file is, whatever an API server adds to them."""

from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from samples.policy_objects import policy, trust_policy
from weir_operator.cluster.documents import read_object
from weir_operator.load import load
from weir_operator.models import InterceptionPolicy, TrustPolicy
from weir_operator.problems import PolicyError

RULE = {
    "name": "r",
    "match": {"hosts": ["A.Example."], "ports": [443, "8000-8100"], "protocols": ["tls"], "apps": [{"uids": [7]}]},
    "action": "Deny",
}
SPEC = {
    "podSelector": {"matchLabels": {"app": "no", "n": "1"}},
    "priority": 5,
    "capture": {"otherProtocols": False, "otherUDP": "Deny", "dns": {"stripECH": True, "server": "192.0.2.53"}},
    "rules": [RULE],
}


def in_file(obj):
    kept = {key: obj[key] for key in ("apiVersion", "kind", "spec")}
    metadata = {key: obj["metadata"][key] for key in ("name", "namespace") if key in obj["metadata"]}
    return load(yaml.safe_dump({**kept, "metadata": metadata}).encode(), "p.yaml")[0].document


@pytest.mark.parametrize("namespace", ["shop", None])
def test_an_object_is_read_as_a_file_is(namespace):
    obj = policy("p", namespace, **SPEC)
    loaded = read_object(obj)
    assert isinstance(loaded.document, InterceptionPolicy)
    assert loaded.document == in_file(obj)
    trust = trust_policy("t", namespace, failOpen={"ttl": "1h", "maxTTL": 7200}, upstream={"minTLSVersion": "1.3"})
    assert isinstance(read_object(trust).document, TrustPolicy)
    assert read_object(trust).document == in_file(trust)


def test_text_is_text_whatever_yaml_would_read():
    loaded = read_object(policy("1e3", "no", podSelector={"matchLabels": {"on": "off"}}))
    assert loaded.document.metadata.name == "1e3"
    assert loaded.document.metadata.namespace == "no"
    assert loaded.document.spec.pod_selector == {"matchLabels": {"on": "off"}}


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        (policy("p", defaultAktion="Deny"), "InterceptionPolicy shop/p: spec.defaultAktion: unknown field"),
        (policy("p", None, priority=-1), "ClusterInterceptionPolicy p: spec.priority: found the number -1"),
        (policy("p", priority=True), "found the boolean true"),
        (policy("p", rules=[{"action": "Deny", "match": {"hosts": []}}]), "spec.rules[0].match.hosts: found an empty"),
        (policy("p", rules={"a": 1}), "spec.rules: found an object; allowed: a list"),
        (trust_policy("t", None, failOpen={"ttl": None}), "ClusterTrustPolicy t: spec.failOpen.ttl: found nothing"),
        ({"apiVersion": "weir.dev/v1", "kind": "TrustPolicy", "metadata": {"name": "t"}}, "found 'weir.dev/v1'"),
        ({"apiVersion": "weir.dev/v1alpha1", "kind": "TrustPolicy", "metadata": {"name": "t"}}, "spec: missing"),
        ({"apiVersion": "weir.dev/v1alpha1", "kind": "TrustPolicy", "spec": {}}, "metadata.name: missing"),
        ({"kind": "Pod"}, "kind: found 'Pod'"),
        ({}, "kind: missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_object_and_field(obj, said):
    with pytest.raises(PolicyError) as refused:
        read_object(obj)
    assert said in str(refused.value)


def test_what_is_found_wrong_later_is_told_with_the_object_too():
    problem = read_object(policy("p")).problem("spec.rules[3].http", "no")
    assert str(problem) == "InterceptionPolicy shop/p: spec.rules[3].http: no"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text() | st.sampled_from(["rules", "capture", "match"]), below),
    max_leaves=20,
)


@given(json_values)
def test_any_spec_is_read_or_refused(spec):
    obj = policy("p") | {"spec": spec}
    with suppress(PolicyError):  # nothing else
        assert read_object(obj).file == "InterceptionPolicy shop/p"
