"""The custom resource definitions, as a real API server applies them: what is let in, what is refused, and how."""

import json
import re

import pytest
import yaml

from lab.kube import Cluster, KubectlError
from lab.lab import ROOT
from samples.crd_cases import INVALID, VALID

pytestmark = pytest.mark.cluster

KINDS = {
    "InterceptionPolicy": "interceptionpolicies",
    "ClusterInterceptionPolicy": "clusterinterceptionpolicies",
    "TrustPolicy": "trustpolicies",
    "ClusterTrustPolicy": "clustertrustpolicies",
    "TrustException": "trustexceptions",
}
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.yaml")) + sorted(
    (ROOT / "kind/samples/policies").glob("[!kn]*.yaml")
)
JA4 = "t13d1516h2_8daaf6152771_02713d6af862"


def collection(kind: str, namespace: str) -> str:
    where = "" if kind.startswith("Cluster") else f"namespaces/{namespace}/"
    return f"/apis/weir.dev/v1alpha1/{where}{KINDS[kind]}"


def an_object(kind: str, name: str, spec: object) -> dict:
    return {"apiVersion": "weir.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def create(cluster: Cluster, namespace: str, kind: str, spec: object, *, dry: bool = True):
    """What the API server answers, as strict as kubectl asks it to be."""
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry else "")
    return cluster.request("POST", collection(kind, namespace) + query, an_object(kind, "weir-test", spec))


@pytest.fixture(scope="module")
def shared(crds):
    """A namespace for tests that leave nothing in it."""
    with crds.namespace() as name:
        yield name


def test_the_definitions_are_established_and_have_no_complaint(crds):
    found = json.loads(crds.kubectl("get", "customresourcedefinitions", "-o", "json"))
    ours = {item["spec"]["names"]["kind"]: item for item in found["items"] if item["spec"]["group"] == "weir.dev"}
    assert set(KINDS) <= set(ours)
    for kind in KINDS:
        conditions = {one["type"]: one["status"] for one in ours[kind]["status"]["conditions"]}
        assert conditions["Established"] == conditions["NamesAccepted"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize("case", INVALID, ids=lambda case: f"{case.kind}-{case.path}")
def test_a_wrong_field_is_named_with_what_is_allowed(crds, shared, case):
    answer = create(crds, shared, case.kind, case.spec)
    assert answer.status_code in (400, 422), answer.text
    message = answer.json()["message"]
    assert re.search(rf"{re.escape(case.path)}[:\"\]]", message), message
    assert case.allowed in message, message


def test_at_least_45_wrong_fields_are_tried():
    assert len(INVALID) >= 45


@pytest.mark.parametrize("case", VALID, ids=lambda case: f"{case.kind}-{case.name}")
def test_what_is_allowed_is_let_in(crds, shared, case):
    answer = create(crds, shared, case.kind, case.spec)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("kind", "spec", "told"),
    [
        (
            "InterceptionPolicy",
            {"rules": [{"action": "Deny", "match": {"hosts": ["https://example.com"]}}]},
            'spec.rules[0].match.hosts[0]: Invalid value: "https://example.com": allowed: a host name',
        ),
        (
            "InterceptionPolicy",
            {"rules": [{"action": "Deny", "https": []}]},
            'unknown field "spec.rules[0].https"',
        ),
        ("InterceptionPolicy", {"namespaceSelector": {}}, 'unknown field "spec.namespaceSelector"'),
        (
            "InterceptionPolicy",
            {"defaultAction": "Drop"},
            'spec.defaultAction: Unsupported value: "Drop": supported values: "Intercept", "Passthrough", "Deny"',
        ),
        ("TrustPolicy", {"failOpen": {"ttl": "2h", "maxTTL": "1h"}}, "spec.failOpen.maxTTL: Invalid value"),
        ("TrustPolicy", {"upstream": {"roots": [{"file": "/ca.pem"}]}}, 'unknown field "spec.upstream.roots[0].file"'),
        ("TrustException", {"host": "*", "decision": "Intercept"}, "spec.app: Invalid value"),
    ],
)
def test_kubectl_apply_says_it_too(crds, shared, kind, spec, told):
    with pytest.raises(KubectlError) as refused:
        crds.kubectl("apply", "-n", shared, "-f", "-", stdin=json.dumps(an_object(kind, "weir-test", spec)))
    assert told in str(refused.value)


def test_all_that_is_wrong_is_said_at_once(crds, shared):
    spec = {
        "rules": [{"action": "Deny", "match": {"hosts": ["a b"], "cidrs": ["here"]}}, {"action": "Deny", "name": "-"}],
        "trustPolicyRef": {"name": "X"},
    }
    message = create(crds, shared, "InterceptionPolicy", spec).json()["message"]
    found = re.findall(r"(spec\S+): Invalid value", message)
    assert sorted(found) == [
        "spec.rules[0].match.cidrs[0]", "spec.rules[0].match.hosts[0]", "spec.rules[1].name", "spec.trustPolicyRef.name",
    ]  # fmt: skip


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_apply(crds, namespace, example):
    crds.kubectl("apply", "-n", namespace, *_dry_if_cluster_wide(example.read_text()), "-f", str(example))


def test_the_examples_in_the_policy_reference_apply(crds, namespace):
    examples = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/policy.md").read_text(), re.DOTALL)
    assert examples
    for written in examples:
        example = re.sub(r", namespace: \w+", "", written)
        crds.kubectl("apply", "-n", namespace, *_dry_if_cluster_wide(example), "-f", "-", stdin=example)


def _dry_if_cluster_wide(text):
    """Nothing is left that reaches beyond a namespace of the test's own."""
    return ["--dry-run=server"] if any(one["kind"].startswith("Cluster") for one in yaml.safe_load_all(text)) else []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("interceptionpolicy", ["which pods of its namespace are captured"]),
        ("interceptionpolicy.spec.rules.match", ["hosts", "Names of servers", "cidrs", "ports", "8000-8100", "apps"]),
        ("interceptionpolicy.spec.failureMode", ["ENUM", "Open", "Closed", "go direct"]),
        ("interceptionpolicy.spec.priority", ["the default is 1000", "lower number"]),
        ("clusterinterceptionpolicy.spec.namespaceSelector", ["kubernetes.io/metadata.name"]),
        ("trustpolicy.spec.failOpen.ttl", ["1h (the default)", "seconds"]),
        ("trustexception.spec", ["decision", "never intercept", "Only the decision can be changed"]),
        ("trustexception.status.state", ["Probation", "as a probe"]),
    ],
)
def test_kubectl_explain_reads_well(crds, path, words):
    text = " ".join(crds.kubectl("explain", path).split())
    for word in words:
        assert word in text


def test_kubectl_explain_shows_the_whole_tree(crds):
    text = crds.kubectl("explain", "interceptionpolicy.spec.rules.match", "--recursive")
    for field in ("apps", "uids", "ja4", "hosts", "cidrs", "ports", "protocols"):
        assert re.search(rf"^ +{field}\t", text, re.MULTILINE)


def test_an_empty_policy_gets_only_defaults_that_say_nothing_to_other_policies(crds, shared):
    assert create(crds, shared, "InterceptionPolicy", {}).json()["spec"] == {"priority": 1000}
    assert create(crds, shared, "ClusterTrustPolicy", {}).json()["spec"] == {}
    host = {"host": "api.example.com"}
    assert create(crds, shared, "TrustException", host).json()["spec"] == {**host, "decision": "Auto"}


def test_only_the_decision_of_an_exception_can_be_changed(crds, namespace):
    spec = {
        "host": "api.example.com",
        "workload": {"kind": "Deployment", "name": "web"},
        "app": {"uid": 1000, "ja4": JA4},
    }
    assert create(crds, namespace, "TrustException", spec, dry=False).status_code == 201
    path = collection("TrustException", namespace) + "/weir-test"
    merge = {"Content-Type": "application/merge-patch+json"}
    for change, field in (
        ({"host": "other.example.com"}, "spec.host"),
        ({"workload": {"name": "other"}}, "spec.workload"),
        ({"workload": None}, "spec.workload"),
        ({"app": {"uid": 0}}, "spec.app"),
        ({"app": None}, "spec.app"),
    ):
        answer = crds.request("PATCH", path, {"spec": change}, headers=merge)
        assert answer.status_code == 422
        assert f"{field}: Forbidden" in answer.json()["message"]
        assert "allowed: delete the exception and make another" in answer.json()["message"]
    for decision in ("Passthrough", "Intercept", "Auto"):
        answer = crds.request("PATCH", path, {"spec": {"decision": decision}}, headers=merge)
        assert answer.json()["spec"] == {**spec, "decision": decision}


def test_a_part_that_an_exception_lacks_cannot_be_added(crds, namespace):
    assert create(crds, namespace, "TrustException", {"host": "a.example"}, dry=False).status_code == 201
    path = collection("TrustException", namespace) + "/weir-test"
    merge = {"Content-Type": "application/merge-patch+json"}
    for field, value in (("workload", {"kind": "Job", "name": "j"}), ("app", {"uid": 1})):
        answer = crds.request("PATCH", path, {"spec": {field: value}}, headers=merge)
        assert f"spec.{field}: Forbidden" in answer.json()["message"]


CONDITION = {"lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "Valid", "message": "", "observedGeneration": 1}


def set_status(cluster: Cluster, path: str, status: dict) -> None:
    answer = cluster.request(
        "PATCH", f"{path}/status?fieldValidation=Strict", {"status": status},
        headers={"Content-Type": "application/merge-patch+json"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text


def columns(table: str) -> dict[str, str]:
    """The one row of what `kubectl get` prints, by column; columns begin where their heads do."""
    head, row = table.splitlines()
    starts = [found.start() for found in re.finditer(r"\S+", head)]
    return {
        head[start:end].strip(): row[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)
    }


def test_the_columns_of_policies(crds, namespace):
    create(crds, namespace, "InterceptionPolicy", {"defaultAction": "Deny"}, dry=False)
    status = {
        "conditions": [
            {"type": "Accepted", "status": "True", **CONDITION},
            {"type": "Programmed", "status": "False", **CONDITION},
            {"type": "Degraded", "status": "True", **CONDITION},
        ],
        "pods": {"selected": 5, "captured": 3, "current": 1, "missed": 2},
        "missed": [{"namespace": namespace, "name": "web", "reason": "CreatedBefore"}],
        "observedGeneration": 1,
    }
    set_status(crds, collection("InterceptionPolicy", namespace) + "/weir-test", status)
    found = columns(crds.kubectl("get", "ipol", "-n", namespace))
    assert list(found) == ["NAME", "ACCEPTED", "PROGRAMMED", "PODS", "MISSED", "AGE"]
    assert list(found.values())[:-1] == ["weir-test", "True", "False", "3", "2"]
    wide = columns(crds.kubectl("get", "ipol", "-n", namespace, "-o", "wide"))
    assert (wide["CURRENT"], wide["DEFAULT"]) == ("1", "Deny")


def test_the_columns_of_trust_policies(crds, namespace):
    create(crds, namespace, "TrustPolicy", {}, dry=False)
    condition = {"type": "Accepted", "status": "True", **CONDITION}
    status = {"conditions": [condition], "references": 1, "referredBy": ["InterceptionPolicy/ns/one"]}
    set_status(crds, collection("TrustPolicy", namespace) + "/weir-test", status)
    found = columns(crds.kubectl("get", "tpol", "-n", namespace))
    assert list(found.values())[:-1] == ["weir-test", "True", "1"]


def test_the_columns_of_exceptions(crds, namespace):
    workload = {"kind": "Deployment", "name": "web"}
    create(crds, namespace, "TrustException", {"host": "api.example.com", "workload": workload}, dry=False)
    status = {
        "state": "Bypassed",
        "reason": "client_distrusts_ca",
        "alert": 48,
        "failures": 1,
        "successes": 0,
        "firstSeen": "2026-01-01T00:00:00.000Z",
        "lastSeen": "2026-01-01T00:00:00.000Z",
        "expiresAt": "2026-01-01T01:00:00.000Z",
        "pods": ["web-1"],
        "conditions": [{"type": "Decided", "status": "False", **CONDITION}],
    }
    set_status(crds, collection("TrustException", namespace) + "/weir-test", status)
    found = columns(crds.kubectl("get", "tex", "-n", namespace))
    assert list(found) == ["NAME", "HOST", "WORKLOAD", "STATE", "REASON", "DECISION", "EXPIRES", "AGE"]
    assert list(found.values())[1:-1] == [
        "api.example.com", "web", "Bypassed", "client_distrusts_ca", "Auto", "2026-01-01T01:00:00.000Z",
    ]  # fmt: skip


def test_one_word_lists_them_all(crds, namespace):
    create(crds, namespace, "TrustException", {"host": "api.example.com"}, dry=False)
    create(crds, namespace, "InterceptionPolicy", {}, dry=False)
    found = crds.kubectl("get", "weir", "-n", namespace, "-o", "name").split()
    assert {"interceptionpolicy.weir.dev/weir-test", "trustexception.weir.dev/weir-test"} <= set(found)


def test_who_may_edit_a_namespace_may_not_touch_cluster_kinds(crds, namespace):
    crds.kubectl("create", "role", "weir-edit", "-n", namespace, "--verb=*", "--resource=*.weir.dev")
    crds.kubectl("create", "rolebinding", "weir-edit", "-n", namespace, "--role=weir-edit", "--user=alice")

    def may(resource: str, *where: str) -> str:
        return crds.kubectl("auth", "can-i", "create", f"{resource}.weir.dev", *where, "--as=alice", check=False)

    assert may("interceptionpolicies", "-n", namespace).startswith("yes")
    assert may("trustexceptions", "-n", namespace).startswith("yes")
    assert "no" in may("clusterinterceptionpolicies").split()
    assert "no" in may("clustertrustpolicies").split()
