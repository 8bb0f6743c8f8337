"""The operator, as a process with the chart's roles, against a real API server."""

import base64
import json
import shutil
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest

from lab.operator import RunningOperator, bare_pod, installed_roles
from lab.running import wait_for

pytestmark = pytest.mark.cluster

API = "/apis/weir.dev/v1alpha1"
REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
SECOND = 1.1  # times in objects are whole seconds


@pytest.fixture(scope="module")
def home(cluster):
    """The namespace of the installation, with the chart's definitions and roles."""
    if shutil.which("helm") is None:
        pytest.skip("no helm on PATH: the operator's roles are the chart's")
    with cluster.namespace(prefix="weir-home") as name, installed_roles(cluster, name):
        yield name


@pytest.fixture
def operator(cluster, home):
    with RunningOperator(cluster, home, "--certificates=CertManager") as running:
        yield running


class Objects:
    """Objects in a namespace, in few words."""

    def __init__(self, cluster, namespace):
        self.cluster = cluster
        self.namespace = namespace

    def request(self, method, path, body=None, **options):
        answer = self.cluster.request(method, path, body, **options)
        assert answer.ok, answer.text
        return answer.json()

    def path(self, plural, name=""):
        return f"{API}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def create(self, plural, kind, name, spec, **metadata):
        body = {"apiVersion": "weir.dev/v1alpha1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
        return self.request("POST", self.path(plural), body)

    def policy(self, name="web", **spec):
        spec = {"podSelector": {"matchLabels": {"app": "web"}}, "defaultAction": "Intercept", **spec}
        return self.create("interceptionpolicies", "InterceptionPolicy", name, spec)

    def pod(self, name, **more):
        return self.request("POST", f"/api/v1/namespaces/{self.namespace}/pods", bare_pod(name, **more))

    def exception(self, name, status=None, **spec):
        spec = {"host": f"{name}.example", **spec}
        made = self.create("trustexceptions", "TrustException", name, spec)
        if status:
            path = f"{self.path('trustexceptions', name)}/status"
            self.request("PUT", path, {**made, "status": status})
        return made

    def get(self, plural, name):
        return self.request("GET", self.path(plural, name))

    def status(self, name="web", plural="interceptionpolicies"):
        return self.get(plural, name).get("status") or {}

    def holds(self, kind, name="web", plural="interceptionpolicies"):
        """The status of a condition, once the object's generation was looked at."""
        obj = self.get(plural, name)
        found = [one for one in (obj.get("status") or {}).get("conditions", ()) if one["type"] == kind]
        seen = found and found[0]["observedGeneration"] == obj["metadata"]["generation"]
        return found[0]["status"] if seen else None


@pytest.fixture
def objects(cluster, namespace):
    return Objects(cluster, namespace)


def condition(status, kind):
    return next(one for one in status["conditions"] if one["type"] == kind)


def version(obj):
    return obj["metadata"]["resourceVersion"]


def summary(objects, home, key, current, uncaptured=()):
    policies = {key: {"connected": current, "current": current}}
    told = json.dumps({"policies": policies, "uncaptured": list(uncaptured)})
    metadata = {"name": f"weir-stream-{objects.namespace}", "labels": {"weir.dev/stream-summary": "true"}}
    objects.request("POST", f"/api/v1/namespaces/{home}/configmaps", {"metadata": metadata, "data": {"summary": told}})


def test_a_pod_whose_sidecar_finds_no_rules_is_missed_and_has_an_event(operator, objects, home):
    objects.policy()
    uid = objects.pod("slipped", captured=True)["metadata"]["uid"]
    objects.pod("fine", captured=True)
    summary(objects, home, f"InterceptionPolicy/{objects.namespace}/web", 1, [uid])
    wait_for("it is missed", lambda: objects.status().get("missed"))
    status = objects.status()
    assert status["missed"] == [{"namespace": objects.namespace, "name": "slipped", "reason": "PluginMissed"}]
    assert status["pods"] == {"selected": 2, "captured": 1, "current": 1, "missed": 1}
    path = f"/apis/events.k8s.io/v1/namespaces/{objects.namespace}/events"

    def told():
        found = objects.request("GET", path)["items"]
        return [(one["regarding"]["uid"], one["reason"]) for one in found] == [(uid, "NotCaptured")]

    wait_for("its event", told)


def test_a_policys_status_tells_of_its_pods(operator, objects, home):
    objects.pod("older")
    time.sleep(SECOND)
    objects.policy()
    time.sleep(SECOND)
    objects.pod("missed")
    objects.pod("host", hostNetwork=True)
    objects.pod("opted-out", labels={"weir.dev/inject": "false"})
    objects.pod("captured", captured=True)
    objects.pod("another", labels={"app": "db"})
    wait_for("all pods are counted", lambda: objects.status().get("pods", {}).get("selected") == 5)
    status = objects.status()
    assert status["pods"] == {"selected": 5, "captured": 1, "current": 0, "missed": 4}
    assert {one["name"]: one["reason"] for one in status["missed"]} == {
        "older": "CreatedBefore",
        "missed": "WebhookMissed",
        "host": "HostNetwork",
        "opted-out": "OptedOut",
    }
    assert condition(status, "Accepted")["status"] == "True"
    assert condition(status, "Degraded")["status"] == "True"
    assert condition(status, "Programmed")["message"] == "0 of 1 captured pods run generation 1"

    summary(objects, home, f"InterceptionPolicy/{objects.namespace}/web", 1)
    wait_for("the sidecar's word counts", lambda: objects.holds("Programmed") == "True")
    assert operator.metrics()['weir_pods_missed{reason="HostNetwork"}'] == 1

    for name in ("older", "missed", "host", "opted-out"):
        path = f"/api/v1/namespaces/{objects.namespace}/pods/{name}"
        objects.request("DELETE", path, {"gracePeriodSeconds": 0})
    wait_for("no pod is missed", lambda: objects.holds("Degraded") == "False")


def test_nothing_is_put_on_users_objects_but_statuses(operator, objects):
    made = objects.policy()
    wait_for("its status", lambda: objects.holds("Accepted"))
    found = objects.get("interceptionpolicies", "web")
    assert found["spec"] == made["spec"]
    for field in ("finalizers", "annotations", "generation"):
        assert found["metadata"].get(field) == made["metadata"].get(field)
    events = objects.request("GET", f"/api/v1/namespaces/{objects.namespace}/events")
    assert events["items"] == []


def test_a_reference_that_leads_nowhere_is_told_and_mended(operator, objects):
    objects.policy(trustPolicyRef={"name": "trust", "kind": "TrustPolicy"})
    wait_for("it is not accepted", lambda: objects.holds("Accepted") == "False")
    assert "trust" in condition(objects.status(), "Accepted")["message"]
    objects.create("trustpolicies", "TrustPolicy", "trust", {"ca": {"source": "Pod"}})
    wait_for("it is accepted", lambda: objects.holds("Accepted") == "True")
    wait_for("the other knows", lambda: objects.status("trust", "trustpolicies").get("references") == 1)
    assert objects.status("trust", "trustpolicies")["referredBy"] == [f"InterceptionPolicy/{objects.namespace}/web"]


def test_a_change_is_told_by_its_generation(operator, objects):
    objects.policy()
    wait_for("its status", lambda: objects.holds("Accepted"))
    before = condition(objects.status(), "Accepted")
    objects.cluster.kubectl(
        "patch", "interceptionpolicy", "web", "-n", objects.namespace, "--type=merge", "-p", '{"spec":{"priority":7}}'
    )
    wait_for("generation 2 was looked at", lambda: objects.status()["observedGeneration"] == 2)
    assert objects.holds("Accepted") == "True"
    assert condition(objects.status(), "Accepted")["lastTransitionTime"] == before["lastTransitionTime"]


def test_killed_and_started_again_it_catches_up_and_writes_nothing_twice(cluster, home, objects):
    objects.pod("a", captured=True)
    with RunningOperator(cluster, home, "--certificates=CertManager") as first:
        for name in ("stays", "changes", "goes"):
            objects.policy(name)
        objects.exception("e")
        wait_for("a status each", lambda: all(objects.holds("Accepted", name) for name in ("stays", "changes", "goes")))
        wait_for("and the exception", lambda: objects.holds("Decided", "e", "trustexceptions"))
        first.settle()
        first.kill()
        objects.request("DELETE", objects.path("interceptionpolicies", "goes"))
        patch = '{"spec":{"trustPolicyRef":{"name":"nowhere"}}}'
        objects.cluster.kubectl(
            "patch", "interceptionpolicy", "changes", "-n", objects.namespace, "--type=merge", "-p", patch
        )
        objects.policy("new")
        versions = {name: version(objects.get("interceptionpolicies", name)) for name in ("stays",)}
        exception = version(objects.get("trustexceptions", "e"))
        first.start()
        wait_for("what is new", lambda: objects.holds("Accepted", "new") == "True")
        wait_for("what has changed", lambda: objects.holds("Accepted", "changes") == "False")
        first.settle()
        assert first.writes() == 2
        assert version(objects.get("interceptionpolicies", "stays")) == versions["stays"]
        assert version(objects.get("trustexceptions", "e")) == exception


def test_while_the_api_server_is_away_it_waits_and_then_goes_on(own_cluster, operator, objects):
    objects.policy("before")
    wait_for("its status", lambda: objects.holds("Accepted", "before"))
    operator.settle()
    before, written = version(objects.get("interceptionpolicies", "before")), operator.writes()
    own_cluster.restart_api_server(down_seconds=5)
    objects.policy("after")
    wait_for("a status after", lambda: objects.holds("Accepted", "after"), 60)
    objects.request("DELETE", objects.path("interceptionpolicies", "before"))
    objects.exception("after")
    wait_for("the exception's too", lambda: objects.holds("Decided", "after", "trustexceptions"), 60)
    operator.settle()
    assert operator.process.poll() is None
    assert operator.writes() == written + 2, before


def test_many_pods_that_start_make_few_writes(operator, objects):
    objects.policy()
    wait_for("its status", lambda: objects.holds("Accepted"))
    operator.settle()
    written, began = operator.writes(), time.monotonic()
    for number in range(150):
        objects.pod(f"p{number}", captured=number % 2 == 0)
    wait_for("all are counted", lambda: objects.status()["pods"]["selected"] == 150)
    operator.settle()
    assert objects.status()["pods"] == {"selected": 150, "captured": 75, "current": 0, "missed": 75}
    assert len(objects.status()["missed"]) == 10
    # One at once, one each two seconds, and the one that was due when the count began.
    assert operator.writes() - written <= (time.monotonic() - began) / 2 + 2


def text(time):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_exceptions_that_had_their_time_go_unless_a_person_decided(operator, objects):
    now = datetime.now(UTC)
    seen, ended = text(now - timedelta(hours=5)), text(now - timedelta(hours=4))
    old = {"state": "Bypassed", "lastSeen": seen, "expiresAt": ended, "failures": 3}
    objects.exception("fresh", {**old, "lastSeen": text(now), "expiresAt": text(now + timedelta(hours=1))})
    objects.exception("decided", old, decision="Passthrough")
    objects.exception("old", old)
    objects.exception("trusted", {**old, "state": "Trusted", "lastSeen": text(now - timedelta(minutes=11))})

    def left():
        return {one["metadata"]["name"] for one in objects.request("GET", objects.path("trustexceptions"))["items"]}

    wait_for("two are gone", lambda: left() == {"fresh", "decided"})
    operator.settle()
    assert left() == {"fresh", "decided"}
    assert objects.holds("Decided", "decided", "trustexceptions") == "True"
    assert objects.holds("Decided", "fresh", "trustexceptions") == "False"
    status = objects.status("fresh", "trustexceptions")
    assert status["failures"] == 3  # what the serving replicas say is left as it is
    assert status["state"] == "Bypassed"


class Certificates:
    """What a test sees of the control plane's certificates."""

    def __init__(self, cluster, home):
        self.cluster = cluster
        self.home = home

    def secret(self, name):
        answer = self.cluster.request("GET", f"/api/v1/namespaces/{self.home}/secrets/{name}")
        return answer.json() if answer.ok else None

    def field(self, secret, name):
        found = self.secret(secret)
        return base64.b64decode(found["data"][name]) if found else None

    def bundle(self, name="weir-mutating", plural="mutatingwebhookconfigurations"):
        found = self.cluster.request("GET", f"{REGISTRATION}/{plural}/{name}").json()
        return base64.b64decode(found["webhooks"][0]["clientConfig"].get("caBundle", ""))

    def verifies(self, bundle, serving, host):
        """Whether who trusts this bundle alone would take this certificate for this host, as OpenSSL sees it."""
        directory = self.cluster.directory
        pair = directory / "serving.pair"
        pair.write_bytes(serving)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(pair)
        client = ssl.create_default_context(cadata=bundle.decode())
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)
        for _ in range(4):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                except ssl.SSLCertVerificationError:
                    return False
        return True

    def pair(self):
        return self.field("weir-serving", "tls.crt") + self.field("weir-serving", "tls.key")


def webhook(home, kind, name):
    service = {"namespace": home, "name": "weir-webhook", "path": "/"}
    hook = {
        "name": "test.weir.dev",
        "clientConfig": {"service": service},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore",
        "objectSelector": {"matchLabels": {"no": "object"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "webhooks": [hook, {**hook, "name": "more.weir.dev"}],
    }


@pytest.fixture
def certificates(cluster, home):
    """Webhook configurations and the operator's Deployment, as the chart makes them; no Secrets at the end."""
    paths = {}
    for kind, name in (
        ("MutatingWebhookConfiguration", "weir-mutating"),
        ("ValidatingWebhookConfiguration", "weir-validating"),
    ):
        path = f"{REGISTRATION}/{kind.lower()}s"
        cluster.request("DELETE", f"{path}/{name}")
        cluster.request("POST", path, webhook(home, kind, name)).raise_for_status()
        paths[f"{path}/{name}"] = None
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i.invalid/i"}]}}
    deployment = {
        "metadata": {"name": "weir-operator"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    apps = f"/apis/apps/v1/namespaces/{home}/deployments"
    cluster.request("POST", apps, deployment).raise_for_status()
    yield Certificates(cluster, home)
    secrets = f"/api/v1/namespaces/{home}/secrets"
    for path in (*paths, f"{apps}/weir-operator", f"{secrets}/weir-ca", f"{secrets}/weir-serving"):
        cluster.request("DELETE", path)


def test_certificates_are_made_kept_and_put_into_both_webhook_configurations(cluster, home, certificates):
    with RunningOperator(cluster, home) as operator:
        wait_for("the certificate", lambda: certificates.secret("weir-serving"))
        bundle, pair = certificates.field("weir-serving", "ca.crt"), certificates.pair()
        for service in ("weir-webhook", "weir-stream"):
            assert certificates.verifies(bundle, pair, f"{service}.{home}.svc")
        assert not certificates.verifies(bundle, pair, "other.example")
        assert certificates.bundle() == bundle
        assert certificates.bundle("weir-validating", "validatingwebhookconfigurations") == bundle
        assert "previous.crt" not in certificates.secret("weir-serving")["data"]
        for name in ("weir-ca", "weir-serving"):
            owner = certificates.secret(name)["metadata"]["ownerReferences"][0]
            assert (owner["kind"], owner["name"]) == ("Deployment", "weir-operator")
        wait_for("metrics", lambda: 'weir_certificate_expiry_seconds{certificate="serving"}' in operator.metrics())
        left = operator.metrics()['weir_certificate_expiry_seconds{certificate="serving"}'] - time.time()
        assert 89 < left / 86400 <= 90

        operator.kill()
        before = [version(certificates.secret(name)) for name in ("weir-ca", "weir-serving")]
        path = f"{REGISTRATION}/mutatingwebhookconfigurations/weir-mutating"
        fresh = webhook(home, "MutatingWebhookConfiguration", "weir-mutating")  # as an upgrade of the chart would
        fresh["metadata"]["resourceVersion"] = version(cluster.request("GET", path).json())
        cluster.request("PUT", path, fresh).raise_for_status()
        operator.start()
        wait_for("the bundle is back", lambda: certificates.bundle() == bundle)
        assert [version(certificates.secret(name)) for name in ("weir-ca", "weir-serving")] == before


def test_a_ca_is_rotated_so_that_nobody_meets_a_certificate_of_one_that_he_was_not_told_of(cluster, home, certificates):
    with RunningOperator(cluster, home, "--ca-overlap=4s"):
        wait_for("the certificate", lambda: certificates.secret("weir-serving"))
        host, old = f"weir-webhook.{home}.svc", certificates.bundle()
        first = certificates.pair()
        cluster.kubectl("annotate", "secret", "weir-ca", "-n", home, "weir.dev/rotate=now")
        both = wait_for("two CAs are announced", lambda: len(found := certificates.bundle()) > len(old) and found)
        assert both.endswith(old)
        assert certificates.pair() == first
        assert "weir.dev/rotate" not in certificates.secret("weir-ca")["metadata"].get("annotations", {})

        wait_for("the new one signs", lambda: certificates.pair() != first)
        assert certificates.verifies(both, certificates.pair(), host)
        assert not certificates.verifies(old, certificates.pair(), host)

        new = wait_for("the old one is forgotten", lambda: len(found := certificates.bundle()) < len(both) and found)
        assert certificates.verifies(new, certificates.pair(), host)
        wait_for("sidecars are told", lambda: certificates.field("weir-serving", "ca.crt") == new)


def test_secrets_that_are_deleted_are_made_anew(cluster, home, certificates):
    with RunningOperator(cluster, home):
        wait_for("the certificate", lambda: certificates.secret("weir-serving"))
        host, bundle, first = f"weir-stream.{home}.svc", certificates.bundle(), certificates.pair()
        cluster.kubectl("delete", "secret", "weir-serving", "-n", home)
        wait_for("a new certificate", lambda: certificates.secret("weir-serving"))
        assert certificates.pair() != first
        assert certificates.verifies(bundle, certificates.pair(), host)

        second = certificates.pair()
        cluster.kubectl("delete", "secret", "weir-ca", "-n", home)
        wait_for(
            "a new CA beside the old one",
            lambda: certificates.bundle().endswith(bundle) and len(certificates.bundle()) > len(bundle),
        )
        assert certificates.pair() == second  # nobody knows the new CA yet


def test_the_serving_replicas_may_not_read_the_ca_and_the_operator_no_other_secret(cluster, home, certificates):
    def may(who, *what):
        return cluster.kubectl(
            "auth", "can-i", *what, "-n", home, f"--as=system:serviceaccount:{home}:{who}", check=False
        )

    assert may("weir-serving", "get", "secrets/weir-serving").strip() == "yes"
    assert may("weir-serving", "get", "secrets/weir-ca").startswith("no")
    assert may("weir-operator", "get", "secrets/another").startswith("no")
