"""A pod that a policy selects is captured: its requests are intercepted, recorded, and shown by the program."""

import json

import pytest

from lab.workloads import caller, policy

pytestmark = [pytest.mark.cluster, pytest.mark.pods]


def test_a_pod_is_intercepted_and_its_request_is_shown(weir, origin, shop):
    weir.apply(policy("all", shop))
    pod = caller("hello", origin.host, count=3)
    weir.apply({**pod, "metadata": {**pod["metadata"], "namespace": shop}})
    assert [(call["ok"], call.get("weir")) for call in weir.all_calls(shop, "hello")] == [(True, True)] * 3
    records = [
        json.loads(line)
        for line in weir.weir("flows", "-n", shop, "--pod", "hello", "--last", "100", "-o", "json").splitlines()
    ]
    tls = [one for one in records if one["protocol"] == "tls" and "record" not in one]
    assert [(one["host"], one["decision"], one["reason"]) for one in tls] == [(origin.host, "intercept", "default")] * 3
    dns = [one for one in records if one["protocol"] == "dns"]
    assert {one["host"] for one in dns} >= {origin.host}


def test_a_pod_that_no_policy_selects_is_left_alone(weir, origin, shop):
    weir.apply(policy("other", shop, app="somebody-else"))
    pod = caller("plain", origin.host, roots="/origin/ca.crt", count=1)
    weir.apply({**pod, "metadata": {**pod["metadata"], "namespace": shop}})
    assert [(call["ok"], call["weir"]) for call in weir.all_calls(shop, "plain")] == [(True, False)]
    assert "initContainers" not in weir.get("pod", "plain", "-n", shop)["spec"]


def test_the_sidecar_ends_with_no_root_and_two_capabilities(weir, origin, shop):
    weir.apply(policy("all", shop))
    pod = caller("who", origin.host, pause=1)
    weir.apply({**pod, "metadata": {**pod["metadata"], "namespace": shop}})
    weir.wait_phase(shop, "who", "Running")
    status = weir.kubectl("exec", "who", "-n", shop, "-c", "weir-sidecar", "--", "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == {"15801"}
    assert int(fields["CapEff"], 16) == (1 << 13 | 1 << 10)
    assert fields["NoNewPrivs"] == "1"
    assert fields["Groups"].split() == []


@pytest.mark.parametrize(
    "security",
    [
        {"fsGroup": 2000},
        {"runAsUser": 1000, "runAsNonRoot": True},
        {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 3000},
    ],
)
def test_the_pods_own_security_context_is_no_hindrance(weir, origin, shop, security):
    weir.apply(policy("all", shop))
    container = {"securityContext": {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}}
    pod = caller("strict", origin.host, count=2, securityContext=security, container=container)
    weir.apply({**pod, "metadata": {**pod["metadata"], "namespace": shop}})
    assert [(call["ok"], call.get("weir")) for call in weir.all_calls(shop, "strict")] == [(True, True)] * 2
    assert "token" not in weir.logs(shop, "strict", "weir-sidecar")


def test_a_policy_that_changes_acts_on_a_running_pod(weir, origin, shop):
    weir.apply(policy("all", shop))
    pod = caller("live", origin.host, pause=0.05)
    weir.apply({**pod, "metadata": {**pod["metadata"], "namespace": shop}})
    weir.wait_phase(shop, "live", "Running")
    weir.apply(policy("all", shop, rules=[{"name": "no", "match": {"hosts": [origin.host]}, "action": "Deny"}]))
    weir.wait_calls(shop, "live", lambda call: not call["ok"], seconds=3)
    weir.apply(policy("all", shop, rules=[]))
    weir.wait_calls(shop, "live", lambda call: call["ok"], seconds=3)


def test_a_client_of_the_kubernetes_api_notices_nothing(weir, origin, shop):
    weir.apply(policy("all", shop))
    roots = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    pod = caller("api", "kubernetes.default.svc", roots=roots, count=3)
    weir.apply({**pod, "metadata": {**pod["metadata"], "namespace": shop}})
    assert [(call.get("error"), call["weir"]) for call in weir.all_calls(shop, "api")] == [(None, False)] * 3
    records = [json.loads(line) for line in weir.weir("flows", "-n", shop, "--pod", "api", "-o", "json").splitlines()]
    assert {(one["decision"], one["rule"]) for one in records if one.get("protocol") == "tls"} == {
        ("passthrough", "weir/kubernetes-api")
    }
