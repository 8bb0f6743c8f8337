"""The verbs that ask a cluster: what they ask kubectl, and what they make of the answer."""

import json

import msgspec
import pytest

from lab.fake_kubectl import FakeKubectl
from weir_cli.main import main
from weir_sidecar.contract.flow import Client, Decision, FlowRecord, Protocol, Reason, encode_record

EXCEPTIONS = "trustexceptions.weir.dev"


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    fake = FakeKubectl(tmp_path)
    monkeypatch.setenv("PATH", fake.path)
    monkeypatch.setattr("sys.stdin", None)
    return fake


def record(time, **changes):
    base = FlowRecord(
        time=time, id="1", client=Client(uid=1000), protocol=Protocol.TLS, host="example.com", sni=None,
        address="192.0.2.1", port=443, alpn=None, decision=Decision.INTERCEPT, reason=Reason.RULE, rule="web", tls=None,
        bytes_up=10, bytes_down=20, duration_ms=1.5,
    )  # fmt: skip
    return encode_record(msgspec.structs.replace(base, **changes)).decode()


def exception(name, host, decision="Auto", workload="web", **app):
    return {
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"host": host, "decision": decision, "app": app, "workload": {"kind": "Deployment", "name": workload}},
        "status": {"state": "Bypassed", "reason": "client_distrusts_ca", "alert": 48, "pods": ["web-1", "web-2"]},
    }


def test_flows_of_all_captured_pods_in_order_of_time(kubectl, capsys):
    late, early = record("2026-01-01T10:00:02Z", host="b.example"), record("2026-01-01T10:00:01Z", host="a.example")
    kubectl.answer(
        "logs",
        out=f"[pod/web-1/weir-sidecar] {late}[pod/web-1/weir-sidecar] weir-sidecar: words\n[pod/web-2/weir-sidecar] {early}",
    )
    assert main(["flows", "-n", "shop"]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["POD", "TIME"]
    assert (first.split()[0], "a.example:443" in first) == ("web-2", True)
    assert (second.split()[0], "b.example:443" in second) == ("web-1", True)
    (asked,) = kubectl.asked()
    assert asked[:5] == ["--namespace", "shop", "logs", "--selector", "weir.dev/captured=true"]
    assert asked[asked.index("--container") + 1] == "weir-sidecar"


def test_flows_of_one_pod_as_json(kubectl, capsys):
    kubectl.answer("logs", "web-1", out=f"[pod/web-1/weir-sidecar] {record('2026-01-01T10:00:02Z')}")
    assert main(["flows", "--pod", "web-1", "--last", "5", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["pod"] == "web-1"


def test_flows_that_follow_come_as_they_are(kubectl, capsys):
    lines = "".join(f"[pod/web-1/weir-sidecar] {record(f'2026-01-01T10:00:0{number}Z')}" for number in (2, 1))
    kubectl.answer("logs", "--follow", "app=web", out=lines)
    assert main(["flows", "-l", "app=web", "-f"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == ["10:00:02", "10:00:01"]


def test_what_kubectl_says_is_told_without_its_own_log(kubectl, capsys):
    kubectl.answer("logs", err="E1122 16:45:15.774169 9649 memcache.go:265] noise\nError: pods not found", status=1)
    assert main(["flows", "--pod", "x"]) == 1
    assert capsys.readouterr().err == "weir flows: Error: pods not found\n"


def test_without_kubectl_it_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["status"]) == 1
    assert "kubectl is not on the PATH" in capsys.readouterr().err


def test_exceptions_as_a_table(kubectl, capsys):
    kubectl.answer("get", EXCEPTIONS, "--all-namespaces", out={"items": [exception("web-1", "bank.example", uid=1000)]})
    assert main(["exceptions", "list", "-A"]) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert row.split() == ["shop", "web-1", "bank.example", "Deployment/web", "1000", "Bypassed", "client_distrusts_ca", "48", "Auto", "2"]  # fmt: skip


@pytest.mark.parametrize(("verb", "decision"), [("approve", "Intercept"), ("pin", "Passthrough")])
def test_a_word_is_said_on_all_that_it_is_about(kubectl, capsys, verb, decision):
    found = [
        exception("a", "bank.example"),
        exception("b", "bank.example", workload="job"),
        exception("c", "other.example"),
    ]
    kubectl.answer("get", EXCEPTIONS, out={"items": found})
    kubectl.answer("patch", EXCEPTIONS)
    assert main(["exceptions", verb, "bank.example", "-n", "shop"]) == 0
    assert capsys.readouterr().out == f"a: decision {decision}\nb: decision {decision}\n"
    patches = [asked for asked in kubectl.asked() if "patch" in asked]
    assert [asked[4] for asked in patches] == ["a", "b"]
    assert {asked[-1] for asked in patches} == {json.dumps({"spec": {"decision": decision}})}


def test_a_word_on_what_nobody_learned_makes_an_object(kubectl, capsys):
    kubectl.answer("get", EXCEPTIONS, out={"items": [exception("a", "bank.example", workload="other")]})
    kubectl.answer("create", out="trustexception.weir.dev/web-x1\n")
    argv = ["exceptions", "pin", "bank.example", "--workload", "Deployment/web", "--uid", "7"]
    assert main(argv) == 0
    assert capsys.readouterr().out == "web-x1: made, decision Passthrough\n"
    made = json.loads(kubectl.given()[-1])
    assert made["spec"] == {
        "host": "bank.example",
        "decision": "Passthrough",
        "workload": {"kind": "Deployment", "name": "web"},
        "app": {"uid": 7},
    }


def test_forget_deletes_and_says_when_there_is_nothing(kubectl, capsys):
    kubectl.answer("get", EXCEPTIONS, out={"items": [exception("a", "bank.example")]})
    kubectl.answer("delete", EXCEPTIONS, "a")
    assert main(["exceptions", "forget", "bank.example"]) == 0
    assert main(["exceptions", "forget", "none.example"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "deleted a: bank.example is learned anew\n"
    assert "nothing is known of none.example" in captured.err


def policy(kind, name, accepted="True", missed=(), observed=3, **pods):
    return {
        "kind": kind,
        "metadata": {"name": name, "generation": 3} | ({"namespace": "shop"} if not kind.startswith("Cluster") else {}),
        "status": {
            "conditions": [{"type": "Accepted", "status": accepted, "message": "why", "observedGeneration": observed}],
            "pods": pods,
            "missed": list(missed),
        },
    }


def test_status_shows_policies_and_counts(kubectl, capsys):
    kubectl.answer("clusterinterceptionpolicies.weir.dev,clustertrustpolicies.weir.dev", out={"items": []})
    kubectl.answer(
        "--all-namespaces",
        out={"items": [policy("InterceptionPolicy", "p", selected=3, captured=3, current=2, missed=())]},
    )
    assert main(["status"]) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert row.split() == ["InterceptionPolicy/shop/p", "True", "3", "3", "2"]


def test_status_is_bad_when_pods_are_missed_or_policies_not_accepted(kubectl, capsys):
    cluster = policy("ClusterInterceptionPolicy", "c", accepted="False", observed=2)
    missed = [{"namespace": "shop", "name": "old", "reason": "CreatedBefore"}]
    kubectl.answer("clusterinterceptionpolicies.weir.dev,clustertrustpolicies.weir.dev", out={"items": [cluster]})
    kubectl.answer("--all-namespaces", out={"items": [policy("InterceptionPolicy", "p", missed=missed)]})
    assert main(["status"]) == 1
    out = capsys.readouterr().out
    assert "False?" in out
    assert "ClusterInterceptionPolicy/c is not accepted: why" in out
    assert "InterceptionPolicy/shop/p misses pod shop/old: CreatedBefore" in out


def test_status_without_policies_says_what_that_means(kubectl, capsys):
    kubectl.answer("get", out={"items": []})
    assert main(["status"]) == 0
    assert "no pod is captured" in capsys.readouterr().out


def test_doctor_tells_what_is_there_and_what_is_missing(kubectl, capsys):
    info = {
        "operatingSystem": "linux",
        "kernelVersion": "4.19.0",
        "kubeletVersion": "v1.30.1",
        "containerRuntimeVersion": "c",
    }
    kubectl.answer("version", out={"serverVersion": {"gitVersion": "v1.31.0"}})
    kubectl.answer("nodes", out={"items": [{"metadata": {"name": "n1"}, "status": {"nodeInfo": info}}]})
    kubectl.answer("customresourcedefinitions", out={"items": []})
    kubectl.answer("weir-serving", out={"spec": {"replicas": 2}, "status": {"readyReplicas": 2}})
    kubectl.answer("weir-operator", err="Error from server (Forbidden): no", status=1)
    kubectl.answer("weir-mutating", out={"webhooks": [{"clientConfig": {}, "failurePolicy": "Ignore"}]})
    kubectl.answer("weir-validating")
    assert main(["doctor", "--cluster"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok      Kubernetes: v1.31.0"
    assert lines[1].startswith("MISSING node n1: 4.19.0")
    assert "MISSING CRD trustpolicies; install Weir: helm install" in "\n".join(lines)
    assert any("Forbidden" in line for line in lines)
    assert any(
        line.startswith("MISSING webhook weir-mutating: failurePolicy Ignore; it has no caBundle") for line in lines
    )
    assert any(line.startswith("MISSING webhook weir-validating") for line in lines)


def answer_pod(kubectl, *, captured=True, policies=(), exceptions=()):
    sidecar = [{"name": "weir-sidecar"}] if captured else []
    owner = [{"controller": True, "kind": "ReplicaSet", "name": "web-5d4f"}]
    labels = {"app": "web", "pod-template-hash": "5d4f"}
    metadata = {"namespace": "shop", "name": "web-5d4f-x", "uid": "u", "labels": labels, "ownerReferences": owner}
    kubectl.answer("pod", "web-5d4f-x", out={"metadata": metadata, "spec": {"initContainers": sidecar}})
    kubectl.answer("get", "namespace", "shop", out={"metadata": {"name": "shop"}})
    kubectl.answer("clusterinterceptionpolicies.weir.dev,clustertrustpolicies.weir.dev", out={"items": []})
    kubectl.answer("interceptionpolicies.weir.dev,trustpolicies.weir.dev", out={"items": list(policies)})
    kubectl.answer("get", EXCEPTIONS, out={"items": list(exceptions)})


def interception(**spec):
    metadata = {"name": "p", "namespace": "shop", "generation": 1}
    return {"apiVersion": "weir.dev/v1alpha1", "kind": "InterceptionPolicy", "metadata": metadata, "spec": spec}


def test_explain_asks_the_policies_of_a_pod(kubectl, capsys):
    deny = interception(rules=[{"name": "no", "match": {"hosts": ["bank.example"]}, "action": "Deny"}])
    answer_pod(kubectl, policies=[deny])
    assert main(["explain", "--pod", "shop/web-5d4f-x", "--host", "bank.example"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["decision: deny", "rule:     p/no"]


def test_explain_knows_what_the_workload_learned(kubectl, capsys):
    other = exception("job-1", "bank.example", workload="job")
    answer_pod(kubectl, policies=[interception()], exceptions=[other, exception("web-1", "bank.example", uid=1000)])
    flow = ["explain", "--pod", "web-5d4f-x", "-n", "shop", "--host", "bank.example"]
    assert main([*flow, "--uid", "1000"]) == 0
    assert main(flow) == 0
    learned, unknown = capsys.readouterr().out.split("decision: ")[1:]
    assert learned.startswith("passthrough")
    assert "TrustException web-1" in learned
    assert unknown.startswith("intercept")
    assert "if:       web-1: the user is 1000: this client did not trust the CA" in unknown
    assert "job-1" not in learned + unknown


def test_explain_knows_a_persons_word(kubectl, capsys):
    answer_pod(
        kubectl, policies=[interception()], exceptions=[exception("web-1", "bank.example", decision="Passthrough")]
    )
    assert main(["explain", "--pod", "shop/web-5d4f-x", "--host", "bank.example"]) == 0
    assert "reason:   pinned" in capsys.readouterr().out


def test_explain_of_a_pod_without_sidecar(kubectl, capsys):
    answer_pod(kubectl, captured=False, policies=[interception()])
    assert main(["explain", "--pod", "shop/web-5d4f-x", "--host", "bank.example"]) == 0
    assert "a policy selects this pod, but it has no sidecar" in capsys.readouterr().out
