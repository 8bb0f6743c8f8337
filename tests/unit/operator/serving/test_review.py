"""Admission: read, decided, answered."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_operator.cluster.facts import NamespaceFacts
from weir_operator.cluster.policies import Policies, PolicyKey
from weir_operator.injection.inject import Settings, inject
from weir_operator.injection.json_patch import diff
from weir_operator.serving.review import (
    Answer,
    Operand,
    Request,
    Result,
    ReviewError,
    mutate_pod,
    read,
    validate_pod,
    validate_policy,
    write,
)
from weir_sidecar.contract.config import Identity

SETTINGS = Settings(image="weir:1")


def pod(**metadata):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-", "labels": {"app": "web"}, **metadata},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    }


def policy(**spec):
    metadata = {"name": "web", "namespace": "shop", "generation": 1}
    return {"apiVersion": "weir.dev/v1alpha1", "kind": "InterceptionPolicy", "metadata": metadata, "spec": spec}


def plan():
    return Policies.of([policy()]).plan(NamespaceFacts("shop", {}), {"app": "web"})


def answered(request, answer):
    return json.loads(write(request, answer))["response"]


class TestReading:
    def review(self, **request):
        whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        return json.dumps({**whole, "request": {"uid": "u", "operation": "CREATE", **request}}).encode()

    def test_a_request_is_read_and_what_is_not_needed_is_read_over(self):
        body = self.review(namespace="shop", subResource="status", userInfo={"username": "x"}, dryRun=True)
        assert read(body) == Request("u", Operand.CREATE, "shop", "", "status")

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b"\xff",
            b'{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE"}}',
            b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}',
        ],
    )
    def test_what_is_none_is_an_error(self, body):
        with pytest.raises(ReviewError, match=r"admission\.k8s\.io/v1"):
            read(body)

    @given(st.binary(max_size=200))
    def test_nothing_else_is_raised(self, body):
        with pytest.raises(ReviewError):
            read(body)


class TestWriting:
    def test_a_denial_says_why(self):
        told = answered(Request("u", Operand.CREATE), Answer(Result.DENIED, "because"))
        assert told == {"uid": "u", "allowed": False, "status": {"code": 403, "message": "because"}}

    def test_a_patch_is_a_json_patch(self):
        patch = tuple(diff({"a": 1}, {"b": 2}))
        told = answered(Request("u", Operand.CREATE), Answer(Result.INJECTED, patch=patch))
        assert told["allowed"]
        assert told["patchType"] == "JSONPatch"
        assert json.loads(base64.b64decode(told["patch"])) == [
            {"op": "remove", "path": "/a"},
            {"op": "add", "path": "/b", "value": 2},
        ]

    def test_warnings_are_not_too_long(self):
        told = answered(Request("u", Operand.CREATE), Answer(Result.ALLOWED, warnings=("x" * 999,)))
        assert told["warnings"] == ["x" * 256]


class TestMutatingPods:
    def test_a_selected_pod_is_injected(self):
        answer = mutate_pod(Request("u", Operand.CREATE, "shop", object=pod()), plan(), SETTINGS)
        assert answer.result is Result.INJECTED
        assert answer.patch

    def test_one_that_was_injected_gets_no_patch(self):
        first = mutate_pod(Request("u", Operand.CREATE, "shop", object=pod()), plan(), SETTINGS)
        assert first.patch
        injected = inject(pod(), "shop", plan(), SETTINGS).pod
        again = mutate_pod(Request("u", Operand.CREATE, "shop", object=injected), plan(), SETTINGS)
        assert (again.result, again.patch) == (Result.INJECTED, ())

    def test_one_that_nobody_selects_is_not(self):
        answer = mutate_pod(Request("u", Operand.CREATE, "shop", object=pod()), None, SETTINGS)
        assert answer == Answer(Result.NOT_SELECTED)

    def test_one_that_asked_to_be_left_alone_is(self):
        request = Request("u", Operand.CREATE, "shop", object=pod(labels={"app": "web", "weir.dev/inject": "false"}))
        answer = mutate_pod(request, plan(), SETTINGS)
        assert answer.result is Result.LEFT_ALONE
        assert not answer.patch

    def test_one_as_the_proxys_user_is_refused(self):
        given = pod()
        given["spec"]["securityContext"] = {"runAsUser": 15801}
        answer = mutate_pod(Request("u", Operand.CREATE, "shop", object=given), plan(), SETTINGS)
        assert answer.result is Result.DENIED
        assert "15801" in answer.message

    @pytest.mark.parametrize(
        "request_",
        [
            Request("u", Operand.UPDATE, "shop", object=pod()),
            Request("u", Operand.CREATE, "shop", sub_resource="binding", object={"target": {}}),
            Request("u", Operand.DELETE, "shop"),
        ],
    )
    def test_nothing_but_the_creation_of_a_pod_is_changed(self, request_):
        assert mutate_pod(request_, plan(), SETTINGS) == Answer(Result.ALLOWED)


class TestValidatingPods:
    def test_what_is_wrong_is_told(self):
        old = pod()
        old["spec"]["initContainers"] = [{"name": "weir-sidecar", "image": "weir:1"}]
        new = json.loads(json.dumps(old))
        new["spec"]["initContainers"][0]["image"] = "evil:1"
        answer = validate_pod(Request("u", Operand.UPDATE, "shop", object=new, old_object=old), Identity())
        assert answer.result is Result.DENIED
        assert "weir-sidecar" in answer.message

    def test_the_end_of_a_pod_is_not_hindered(self):
        assert validate_pod(Request("u", Operand.DELETE, old_object=pod()), Identity()) == Answer(Result.ALLOWED)


class TestValidatingPolicies:
    def validate(self, new, old=None, known=()):
        operation = Operand.UPDATE if old else Operand.CREATE
        return validate_policy(Request("u", operation, "shop", object=new, old_object=old), known)

    def test_a_good_one_is_let_in(self):
        assert self.validate(policy(defaultAction="Deny")) == Answer(Result.ALLOWED)

    @pytest.mark.parametrize(
        ("spec", "field"),
        [
            ({"rules": [{"action": "Deny", "match": {"hosts": ["a b"]}}]}, "spec.rules[0].match.hosts[0]"),
            ({"rules": [{"action": "Deny", "match": {"ports": ["9-1"]}}]}, "spec.rules[0].match.ports[0]"),
            ({"rules": [{"action": "Deny", "name": "a"}, {"action": "Deny", "name": "a"}]}, "spec.rules[1].name"),
            ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}, "spec.podSelector"),
        ],
    )
    def test_a_bad_one_is_refused_by_the_field(self, spec, field):
        answer = self.validate(policy(**spec))
        assert answer.result is Result.DENIED
        assert field in answer.message

    def test_one_that_was_bad_before_can_be_finalised(self):
        bad = policy(rules=[{"action": "Deny", "match": {"hosts": ["a b"]}}])
        relabelled = {**bad, "metadata": {**bad["metadata"], "labels": {"a": "b"}}}
        assert self.validate(relabelled, bad) == Answer(Result.ALLOWED)

    def test_a_reference_to_nothing_is_warned_of(self):
        (warning,) = self.validate(policy(trustPolicyRef={"name": "mine"})).warnings
        assert "TrustPolicy 'mine' in namespace shop" in warning

    @pytest.mark.parametrize(
        ("ref", "key"),
        [
            ({"name": "mine"}, PolicyKey("TrustPolicy", "shop", "mine")),
            ({"name": "all", "kind": "ClusterTrustPolicy"}, PolicyKey("ClusterTrustPolicy", None, "all")),
        ],
    )
    def test_a_reference_to_something_is_not(self, ref, key):
        assert self.validate(policy(trustPolicyRef=ref), known=[key]) == Answer(Result.ALLOWED)
