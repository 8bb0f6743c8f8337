"""The serving process, with the chart's roles, against a real API server: who gets a stream, and what it brings."""

import asyncio
import base64
import contextlib
import json
import random
import shutil
import threading
import time

import pytest

from lab.balancer import Balancer
from lab.operator import bare_pod, installed_roles
from lab.running import wait_for
from lab.serving import Certificates, RunningServing, expired
from weir_sidecar.contract.config import Action, SidecarConfig, Stream
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.stream import Applied, Exceptions, Health, Hello, Trust
from weir_sidecar.contract.trust import Said, State, Told, Word
from weir_sidecar.core.trust_entry import Entry
from weir_sidecar.edge.metrics import Metrics as SidecarMetrics
from weir_sidecar.edge.stream_client import PodIdentity, StreamClient, StreamTasks

pytestmark = pytest.mark.cluster

API = "/apis/weir.dev/v1alpha1"
REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
JA4 = "t13d1516h2_8daaf6152771_02713d6af862"


@pytest.fixture(scope="module")
def home(cluster):
    """The namespace of the installation, with the chart's definitions and roles."""
    if shutil.which("helm") is None:
        pytest.skip("no helm on PATH: the roles are the chart's")
    with cluster.namespace(prefix="weir-home") as name, installed_roles(cluster, name):
        yield name


@pytest.fixture(scope="module")
def certificates():
    return Certificates.new()


@pytest.fixture(scope="module")
def serving(cluster, home, certificates):
    with RunningServing(cluster, home, certificates) as running:
        yield running
        # Whatever sidecars did, and however they hung up. (A test gives all replicas a certificate of no use.)
        assert {line["logger"] for line in running.told(level="error")} <= {"weir_operator.serving.knowledge"}


@pytest.fixture
def another(cluster, home, certificates):
    """Makes another serving process; the Secret, which all share, is as it was at the end."""
    with contextlib.ExitStack() as stack:

        def start(*flags, **options):
            return stack.enter_context(RunningServing(cluster, home, certificates, *flags, **options))

        yield start
        start().put_certificates(certificates)


class Objects:
    """Objects in a namespace, in few words."""

    def __init__(self, cluster, namespace):
        self.cluster = cluster
        self.namespace = namespace

    def request(self, method, path, body=None, **options):
        answer = self.cluster.request(method, path, body, **options)
        assert answer.ok, answer.text
        return answer.json()

    def pod(self, name, *, captured=True, owner=None, **labels):
        pod = bare_pod(name, captured=captured, labels=labels)
        if owner:
            reference = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": owner, "uid": "1", "controller": True}
            pod["metadata"]["ownerReferences"] = [reference]
        return self.request("POST", f"/api/v1/namespaces/{self.namespace}/pods", pod)

    def remove_pod(self, name):
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
        self.request("DELETE", path, {"gracePeriodSeconds": 0})

    def create(self, plural, kind, name, spec):
        body = {"apiVersion": "weir.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        return self.request("POST", f"{API}/namespaces/{self.namespace}/{plural}", body)

    def policy(self, name="web", **spec):
        return self.create("interceptionpolicies", "InterceptionPolicy", name, spec)

    def patch(self, plural, name, **spec):
        path = f"{API}/namespaces/{self.namespace}/{plural}/{name}"
        header = {"Content-Type": "application/merge-patch+json"}
        return self.request("PATCH", path, {"spec": spec}, headers=header)

    def exceptions(self):
        return self.request("GET", f"{API}/namespaces/{self.namespace}/trustexceptions")["items"]


@pytest.fixture
def objects(cluster, namespace):
    return Objects(cluster, namespace)


class TestWhoGetsAStream:
    def test_a_pod_gets_its_own_config(self, serving, objects, namespace):
        objects.policy(defaultAction="Deny")
        objects.pod("a")
        with serving.connect(namespace, "a", serving.token(namespace, "a")) as sidecar:
            config = sidecar.config(lambda new: new.config.default_action is Action.DENY).config
        assert config.workload == f"{namespace}/Pod/a"
        assert config.stream is not None
        assert config.stream.server == f"weir-stream.{serving.namespace}.svc:443"
        assert config.stream.authorities_pem == serving.certificates.pem
        assert config.ports.probe == 15804

    def refused(self, serving, namespace, pod, token):
        with serving.connect(namespace, pod, token) as sidecar:
            assert sidecar.status != 200
            cause = sidecar.error()
        wait_for(
            "it is in the log", lambda: serving.told(namespace=namespace, pod=pod, cause=cause, address="127.0.0.1")
        )
        return sidecar.status, cause

    def test_without_a_token_nobody(self, serving, objects, namespace):
        objects.pod("a")
        assert self.refused(serving, namespace, "a", None) == (401, "no_token")

    def test_with_something_that_is_no_token_nobody(self, serving, objects, namespace):
        objects.pod("a")
        assert self.refused(serving, namespace, "a", "x.y.z") == (401, "invalid_token")

    def test_with_a_token_of_another_audience_nobody(self, serving, objects, namespace):
        objects.pod("a")
        token = serving.token(namespace, "a", audience="somebody.else")
        assert self.refused(serving, namespace, "a", token) == (401, "other_audience")

    def test_with_a_token_for_the_api_server_nobody(self, serving, objects, namespace):
        objects.pod("a")
        token = serving.token(namespace, "a", audience=None)
        assert self.refused(serving, namespace, "a", token) == (401, "other_audience")

    def test_with_a_token_that_is_no_pods_nobody(self, serving, objects, namespace):
        objects.pod("a")
        token = serving.token(namespace, None)
        assert self.refused(serving, namespace, "a", token) == (403, "not_a_pods_token")

    def test_another_pods_token_is_refused(self, serving, objects, namespace):
        objects.pod("a")
        objects.pod("b")
        assert self.refused(serving, namespace, "a", serving.token(namespace, "b")) == (403, "other_pod")

    def test_the_same_name_in_another_namespace_is_another_pod(self, serving, objects, namespace, cluster):
        objects.pod("a")
        with cluster.namespace() as other:
            Objects(cluster, other).pod("a")
            assert self.refused(serving, namespace, "a", serving.token(other, "a")) == (403, "other_pod")

    def test_a_pod_that_is_gone_gets_nothing(self, serving, objects, namespace):
        objects.pod("a")
        token = serving.token(namespace, "a")
        objects.remove_pod("a")
        assert self.refused(serving, namespace, "a", token) == (401, "invalid_token")

    def test_a_pod_that_took_the_name_is_not_the_one_that_the_token_is_for(self, serving, objects, namespace):
        objects.pod("a")
        token = serving.token(namespace, "a")
        with serving.connect(namespace, "a", token) as sidecar:  # the API server's word on the token is kept now
            assert sidecar.status == 200
        objects.remove_pod("a")
        objects.pod("a")
        assert self.refused(serving, namespace, "a", token) == (404, "no_such_pod")

    def test_a_pod_that_is_not_captured_gets_nothing(self, serving, objects, namespace):
        objects.pod("a", captured=False)
        assert self.refused(serving, namespace, "a", serving.token(namespace, "a")) == (404, "not_captured")

    def test_an_expired_token_is_refused(self, serving, objects, namespace, own_cluster):
        objects.pod("a")
        token = expired(serving.token(namespace, "a"), own_cluster)
        assert self.refused(serving, namespace, "a", token) == (401, "expired_token")

    def test_no_token_is_in_the_log(self, serving, objects, namespace):
        objects.pod("a")
        token = serving.token(namespace, "a", audience="somebody.else")
        self.refused(serving, namespace, "a", token)
        assert token.rpartition(".")[2] not in serving.log()

    def test_a_second_stream_of_a_pod_ends_the_first(self, serving, objects, namespace):
        objects.pod("a")
        token = serving.token(namespace, "a")
        with serving.connect(namespace, "a", token) as first:
            first.exceptions()
            with serving.connect(namespace, "a", token) as second:
                assert first.ended.wait(5)
                assert second.exceptions() == Exceptions()

    def test_the_end_of_a_pod_ends_its_stream(self, serving, objects, namespace):
        objects.pod("a")
        with serving.connect(namespace, "a", serving.token(namespace, "a")) as sidecar:
            sidecar.exceptions()
            objects.remove_pod("a")
            assert sidecar.ended.wait(5)

    def test_a_pod_without_its_label_is_governed_all_the_same(self, serving, objects, namespace):
        objects.policy(podSelector={"matchLabels": {"app": "web"}}, defaultAction="Passthrough")
        objects.pod("a")
        with serving.connect(namespace, "a", serving.token(namespace, "a")) as sidecar:
            sidecar.config(lambda new: new.config.default_action is Action.PASSTHROUGH)
            objects.cluster.kubectl("label", "pod", "a", "-n", namespace, "weir.dev/captured-")
            time.sleep(0.5)
            objects.patch("interceptionpolicies", "web", defaultAction="Deny")
            sidecar.config(lambda new: new.config.default_action is Action.DENY)
            assert not sidecar.ended.is_set()


class TestConfigs:
    def test_a_change_of_policy_reaches_a_running_sidecar_within_a_second(self, serving, objects, namespace):
        objects.policy(defaultAction="Intercept")
        objects.pod("a")
        with serving.connect(namespace, "a", serving.token(namespace, "a")) as sidecar:
            sidecar.config(lambda new: new.config.default_action is Action.INTERCEPT)
            objects.patch("interceptionpolicies", "web", defaultAction="Deny")
            sidecar.config(lambda new: new.config.default_action is Action.DENY, patience=1.0)

    def test_what_runs_already_is_not_sent(self, serving, objects, namespace):
        objects.policy(defaultAction="Deny")
        objects.pod("a")
        token = serving.token(namespace, "a")
        with serving.connect(namespace, "a", token) as sidecar:
            revision = sidecar.config(lambda new: new.config.default_action is Action.DENY).config.revision
        with serving.connect(namespace, "a", token, revision=revision) as sidecar:
            assert sidecar.exceptions() == Exceptions()
            assert sidecar.hears_nothing(0.5)

    def test_other_kernel_rules_than_the_config_asks_for_are_noticed(self, serving, objects, namespace):
        objects.policy(defaultAction="Deny")
        objects.pod("a")
        token = serving.token(namespace, "a")
        with serving.connect(namespace, "a", token) as sidecar:
            revision = sidecar.config(lambda new: new.config.default_action is Action.DENY).config.revision
        with serving.connect(namespace, "a", token, revision=revision, kernel_revision="older") as sidecar:
            assert sidecar.config().config.revision == revision

    def test_a_pod_that_no_policy_selects_any_more_passes_everything(self, serving, objects, namespace):
        objects.policy(defaultAction="Deny")
        objects.pod("a")
        with serving.connect(namespace, "a", serving.token(namespace, "a")) as sidecar:
            sidecar.config(lambda new: new.config.default_action is Action.DENY)
            objects.cluster.kubectl("delete", "interceptionpolicy", "web", "-n", namespace)
            sidecar.config(lambda new: new.config.default_action is Action.PASSTHROUGH, patience=1.0)

    def test_another_label_may_be_another_policy(self, serving, objects, namespace):
        objects.policy("a", podSelector={"matchLabels": {"tier": "a"}}, defaultAction="Deny")
        objects.pod("a")
        with serving.connect(namespace, "a", serving.token(namespace, "a")) as sidecar:
            sidecar.config(lambda new: new.config.default_action is Action.PASSTHROUGH)
            objects.cluster.kubectl("label", "pod", "a", "-n", namespace, "tier=a")
            sidecar.config(lambda new: new.config.default_action is Action.DENY, patience=1.0)

    def test_a_message_of_no_known_form_ends_nothing(self, serving, objects, namespace):
        objects.policy(defaultAction="Intercept")
        objects.pod("a")
        with serving.connect(namespace, "a", serving.token(namespace, "a")) as sidecar:
            sidecar.config()
            sidecar.tell_raw(b'{"type":"of a later version"}\n')
            sidecar.tell_raw(b"\xff\n\n")
            objects.patch("interceptionpolicies", "web", defaultAction="Deny")
            sidecar.config(lambda new: new.config.default_action is Action.DENY)

    def test_what_is_no_http_harms_nobody_else(self, serving, objects, namespace):
        objects.pod("a")
        token = serving.token(namespace, "a")
        with serving.connect(namespace, "a", token) as broken:
            broken.exceptions()
            broken._socket.sendall(b"no chunk\r\n")
            with serving.connect(namespace, "a", token) as sidecar:
                assert sidecar.exceptions() == Exceptions()
                assert broken.ended.wait(5)

    @pytest.mark.parametrize("first", [b"\n", b"{}\n", b'{"type":"trust","entries":[]}\n'])
    def test_who_does_not_say_hello_first_is_let_go(self, serving, objects, namespace, first):
        objects.pod("a")
        with serving.connect(namespace, "a", serving.token(namespace, "a"), first=first) as sidecar:
            assert sidecar.ended.wait(5)
        assert serving.told(namespace=namespace, cause="bad_hello")


class TestExceptions:
    FAILED = Told("bank.example", State.BYPASSED, 1000, JA4, Reason.CLIENT_DISTRUSTS_CA, 48, failures=1)

    def failed(self, **more):
        now = time.time()
        times = {"first_seen": now - 1, "last_seen": now, "expires_at": now + 3600}
        return Told(**{name: getattr(self.FAILED, name) for name in Told.__struct_fields__} | times | more)

    def test_what_one_pod_learns_becomes_an_object_and_is_told_to_the_others(self, serving, objects, namespace):
        objects.pod("a-0", owner="a")
        objects.pod("a-1", owner="a")
        objects.pod("b-0", owner="b")
        connected = [serving.connect(namespace, pod, serving.token(namespace, pod)) for pod in ("a-0", "a-1", "b-0")]
        with connected[0] as teller, connected[1] as other, connected[2] as stranger:
            for one in connected:
                one.exceptions()
            teller.tell(Trust((self.failed(),)))
            learned = other.exceptions(lambda told: bool(told.learned)).learned
            assert [(one.host, one.state, one.uid, one.ja4) for one in learned] == [
                ("bank.example", State.BYPASSED, 1000, JA4)
            ]
            with pytest.raises(Exception, match="in vain"):
                stranger.exceptions(patience=0.5)
        (obj,) = objects.exceptions()
        assert obj["spec"]["workload"] == {"kind": "StatefulSet", "name": "a"}
        assert obj["spec"]["decision"] == "Auto"
        status = obj["status"]
        assert (status["state"], status["reason"], status["alert"]) == ("Bypassed", "client_distrusts_ca", 48)
        assert status["pods"] == ["a-0"]

    def test_a_persons_word_reaches_the_pods_within_a_second(self, serving, objects, namespace):
        objects.pod("a-0", owner="a")
        with serving.connect(namespace, "a-0", serving.token(namespace, "a-0")) as sidecar:
            sidecar.exceptions()
            sidecar.tell(Trust((self.failed(),)))
            sidecar.exceptions(lambda told: bool(told.learned))
            (obj,) = objects.exceptions()
            objects.patch("trustexceptions", obj["metadata"]["name"], decision="Passthrough")
            told = sidecar.exceptions(lambda told: bool(told.said), patience=1.0)
            assert told == Exceptions(said=(Said("bank.example", Word.PIN, 1000, JA4),))
            objects.patch("trustexceptions", obj["metadata"]["name"], decision="Intercept")
            told = sidecar.exceptions(lambda told: bool(told.said), patience=1.0)
            assert told.said == (Said("bank.example", Word.APPROVE, 1000, JA4),)
            objects.cluster.kubectl("delete", "trustexception", "--all", "-n", namespace)
            assert sidecar.exceptions(patience=1.0) == Exceptions()

    def test_a_word_without_a_workload_is_for_all_pods_of_the_namespace(self, serving, objects, namespace):
        objects.create("trustexceptions", "TrustException", "pinned", {"host": "a.example", "decision": "Passthrough"})
        objects.pod("a-0", owner="a")
        with serving.connect(namespace, "a-0", serving.token(namespace, "a-0")) as sidecar:
            assert sidecar.exceptions(lambda told: bool(told.said)).said == (Said("a.example", Word.PIN),)

    def test_what_is_not_to_be_shared_is_seen_and_not_told(self, serving, objects, namespace):
        objects.create("trustpolicies", "TrustPolicy", "mine", {"failOpen": {"share": False}})
        objects.policy(trustPolicyRef={"name": "mine"}, defaultAction="Deny")
        objects.pod("a-0", owner="a")
        with serving.connect(namespace, "a-0", serving.token(namespace, "a-0")) as sidecar:
            sidecar.config(lambda new: new.config.default_action is Action.DENY)
            assert sidecar.exceptions() == Exceptions()
            sidecar.tell(Trust((self.failed(),)))
            wait_for("it is an object", lambda: [obj for obj in objects.exceptions() if obj.get("status")])
            assert sidecar.hears_nothing(1.0)

    def test_two_replicas_write_the_same_object(self, serving, another, objects, namespace):
        for name in ("a-0", "a-1"):
            objects.pod(name, owner="a")
        second = another()
        first_pod = serving.connect(namespace, "a-0", serving.token(namespace, "a-0"))
        second_pod = second.connect(namespace, "a-1", second.token(namespace, "a-1"))

        def tellers():
            return [sorted((obj.get("status") or {}).get("pods", [])) for obj in objects.exceptions()]

        with first_pod, second_pod:
            for number in range(5):
                for sidecar in (first_pod, second_pod):
                    sidecar.tell(Trust((self.failed(host=f"h{number}.example"),)))
            wait_for("both are in all five", lambda: tellers() == [["a-0", "a-1"]] * 5)

    def test_a_pod_cannot_fill_the_cluster_with_objects(self, serving, objects, namespace):
        objects.pod("a-0", owner="a")
        with serving.connect(namespace, "a-0", serving.token(namespace, "a-0")) as sidecar:
            sidecar.tell(Trust(tuple(self.failed(host=f"h{number}.example") for number in range(400))))
            wait_for("as many as are allowed", lambda: len(objects.exceptions()) == 256)
        assert serving.metrics()['weir_trust_reports_dropped_total{cause="too_many"}'] >= 144

    def test_a_host_that_the_schema_does_not_let_in_harms_nobody_else(self, serving, objects, namespace):
        objects.pod("a-0", owner="a")
        with serving.connect(namespace, "a-0", serving.token(namespace, "a-0")) as sidecar:
            sidecar.tell(Trust((self.failed(host="no host!"), self.failed(host="good.example"))))
            wait_for("the good one is there", lambda: [obj["spec"]["host"] for obj in objects.exceptions()])
        wait_for("the other is in the log", lambda: serving.told(namespace=namespace))
        assert [obj["spec"]["host"] for obj in objects.exceptions()] == ["good.example"]


class RealClient:
    """The sidecar's own end of the stream, on a loop in a thread, and what came of it."""

    def __init__(self, serving, pod, token_file):
        self.stream = Stream(f"localhost:{serving.stream_port}", serving.certificates.pem)
        self.config = SidecarConfig()
        self.heard = []
        self.entries = []
        self._pod = pod
        self._token_file = token_file

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.client = self.call(self._make)
        return self

    def _make(self):
        tasks = StreamTasks(
            stream=lambda: self.stream,
            hello=lambda: Hello("1", self.config.revision, self.config.revision),
            health=lambda: Health(0, {}, 0, 0),
            trust=lambda: self.entries,
            take=self._take,
            hear=self.heard.append,
        )
        pod = PodIdentity(*self._pod, str(self._token_file))
        return StreamClient(self.loop, pod, tasks, SidecarMetrics("1"), random.random, lambda _: None)

    def _take(self, config):
        self.config = config
        return Applied(config.revision)

    def call(self, what):
        async def called():
            return what()

        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(10)

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self.client.close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def test_the_sidecars_own_client_and_this_server_understand_each_other(another, objects, namespace, tmp_path):
    serving = another()
    objects.policy(defaultAction="Deny")
    objects.pod("a")
    token_file = tmp_path / "token"
    token_file.write_text(serving.token(namespace, "a"))
    with RealClient(serving, (namespace, "a"), token_file) as client:
        wait_for("the config came", lambda: client.config.default_action is Action.DENY)
        wait_for("it was answered", lambda: serving.metrics().get('weir_configs_applied_total{result="applied"}'))
        now = time.time()
        times = {"first_seen": now, "last_seen": now, "expires_at": now + 600, "bypasses": 1}
        client.entries = [
            Entry("bank.example", 0, JA4, State.BYPASSED, Reason.CLIENT_DISTRUSTS_CA, 48, failures=1, **times)
        ]
        client.call(client.client.trust_changed)
        (obj,) = wait_for("it is an object", objects.exceptions)
        objects.patch("trustexceptions", obj["metadata"]["name"], decision="Passthrough")
        said = (Said("bank.example", Word.PIN, 0, JA4),)
        wait_for("the person was heard", lambda: client.heard and client.heard[-1].said == said)
        serving.process.kill()
        serving.process.wait()
        objects.patch("interceptionpolicies", "web", defaultAction="Passthrough")
        serving.start()
        wait_for("the change came after all", lambda: client.config.default_action is Action.PASSTHROUGH)
        assert serving.metrics()["weir_stream_messages_unreadable_total"] == 0


class TestFaults:
    def test_streams_outlive_the_api_server(self, own_cluster, serving, objects, namespace):
        objects.policy(defaultAction="Intercept")
        objects.pod("a-0", owner="a")
        with serving.connect(namespace, "a-0", serving.token(namespace, "a-0")) as sidecar:
            sidecar.config(lambda new: new.config.default_action is Action.INTERCEPT)
            own_cluster.stop_api_server()
            try:
                sidecar.tell(Trust((TestExceptions().failed(),)))
                time.sleep(2)
                assert serving.is_ready()
            finally:
                own_cluster.start_api_server()
            objects.patch("interceptionpolicies", "web", defaultAction="Deny")
            sidecar.config(lambda new: new.config.default_action is Action.DENY, patience=30)
            assert sidecar.exceptions(lambda told: bool(told.learned), patience=30).learned
            assert not sidecar.ended.is_set()

    def test_a_new_certificate_is_taken_with_streams_open_and_told_to_them(self, another, objects, namespace):
        serving = another()
        objects.pod("a")
        token = serving.token(namespace, "a")
        with serving.connect(namespace, "a", token) as sidecar:
            sidecar.config()
            new = Certificates.new(serving.certificates.authority)
            serving.put_certificates(new)
            config = sidecar.config(lambda told: told.config.stream.authorities_pem == new.pem).config
            assert not sidecar.ended.is_set()
        # While there are two CAs, one that comes may have missed it.
        with serving.connect(namespace, "a", token, revision=config.revision) as sidecar:
            assert sidecar.config().config.stream.authorities_pem == new.pem

    def test_a_certificate_of_no_use_changes_nothing(self, another, cluster, home):
        serving = another()
        broken = serving.certificates.secret()
        broken["data"]["tls.key"] = Certificates.new().secret()["data"]["tls.key"]
        cluster.request("PUT", f"/api/v1/namespaces/{home}/secrets/weir-serving", broken).raise_for_status()
        wait_for("it is told", lambda: serving.told(level="error"))
        assert serving.review("/mutate/pods", b"{}").status_code == 400
        assert serving.is_ready()

    def test_on_sigterm_it_serves_on_until_nobody_is_left(self, another, objects, namespace):
        serving = another("--drain=3")
        for number in range(4):
            objects.pod(f"a-{number}")
        tokens = [serving.token(namespace, f"a-{number}") for number in range(4)]
        with contextlib.ExitStack() as stack:
            sidecars = [
                stack.enter_context(serving.connect(namespace, f"a-{number}", token))
                for number, token in enumerate(tokens)
            ]
            for sidecar in sidecars:
                sidecar.exceptions()
            serving.process.terminate()
            wait_for("it is not ready", lambda: not serving.is_ready())
            assert sum(sidecar.ended.is_set() for sidecar in sidecars) < 4
            answer = serving.review("/validate/pods", review_of({"operation": "DELETE"}))
            assert answer.json()["response"]["allowed"]
            assert answer.headers["Connection"] == "close"
            with serving.connect(namespace, "a-0", tokens[0]) as refused:
                assert refused.status == 503
            assert all(sidecar.ended.wait(10) for sidecar in sidecars)
        assert serving.process.wait(15) == 0
        assert not serving.told(level="error")


def review_of(request):
    """An AdmissionReview."""
    whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", **request}}
    return json.dumps(whole).encode()


@contextlib.contextmanager
def registered(cluster, namespace, certificates, port):
    """The API server asks a port of loopback about what happens in the namespace."""
    bundle = base64.b64encode(certificates.pem.encode()).decode()

    def hook(name, path, operations, groups, resources):
        url = f"https://127.0.0.1:{port}{path}"
        return {
            "name": name,
            "clientConfig": {"url": url, "caBundle": bundle},
            "rules": [{"apiGroups": groups, "apiVersions": ["*"], "operations": operations, "resources": resources}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 5,
            "failurePolicy": "Fail",
        }

    pods, policies = ["pods"], ["interceptionpolicies", "trustpolicies"]
    both = ["CREATE", "UPDATE"]
    configurations = {
        "mutatingwebhookconfigurations": [hook("pods.weir.dev", "/mutate/pods", ["CREATE"], [""], pods)],
        "validatingwebhookconfigurations": [
            hook("pods.weir.dev", "/validate/pods", ["UPDATE"], [""], [*pods, "pods/ephemeralcontainers"]),
            hook("policies.weir.dev", "/validate/policies", both, ["weir.dev"], policies),
        ],
    }
    for plural, hooks in configurations.items():
        body = {"metadata": {"name": namespace}, "webhooks": hooks}
        cluster.request("POST", f"{REGISTRATION}/{plural}", body).raise_for_status()
    try:
        yield
    finally:
        for plural in configurations:
            cluster.request("DELETE", f"{REGISTRATION}/{plural}/{namespace}").raise_for_status()


@pytest.fixture
def webhooks(cluster, serving, namespace):
    with registered(cluster, namespace, serving.certificates, serving.webhook_port):
        yield


def inject(objects):
    """A pod, made when the API server has begun to ask."""
    objects.policy(defaultAction="Deny")
    path = f"/api/v1/namespaces/{objects.namespace}/pods"

    def made():
        pod = objects.request("POST", path, bare_pod("app"))
        if "initContainers" in pod["spec"]:
            return pod
        objects.remove_pod("app")
        return None

    return wait_for("the webhook is asked", made)


class TestReplacement:
    def test_one_replica_after_the_other_is_replaced_and_no_admission_fails(self, cluster, another, objects, note):
        path = f"/api/v1/namespaces/{objects.namespace}/pods"
        over, answers = threading.Event(), []

        def create():
            """Twenty pods a second."""
            begin = time.monotonic()
            while not over.wait(max(begin + len(answers) / 20 - time.monotonic(), 0)):
                answers.append(cluster.request("POST", path, bare_pod(f"p-{len(answers)}")))

        with Balancer() as balancer:

            def start():
                replica = another("--drain=4")
                balancer.add(replica.webhook_port, replica.is_ready)
                return replica

            replicas = [start(), start()]
            with registered(cluster, objects.namespace, replicas[0].certificates, balancer.port):
                inject(objects)
                creator = threading.Thread(target=create)
                creator.start()
                try:
                    for old in replicas:
                        start()
                        time.sleep(1)
                        old.process.terminate()
                        assert old.process.wait(20) == 0
                finally:
                    over.set()
                    creator.join()
        assert {answer.status_code for answer in answers} == {201}
        assert all("initContainers" in answer.json()["spec"] for answer in answers)
        note.append(f"{len(answers)} pods made while both serving replicas were replaced, none refused")


@pytest.mark.usefixtures("webhooks")
class TestAdmission:
    def test_a_pod_that_a_policy_selects_gets_the_sidecar(self, objects, namespace):
        pod = inject(objects)
        assert [one["name"] for one in pod["spec"]["initContainers"]] == ["weir-init", "weir-sidecar"]
        config = json.loads(pod["metadata"]["annotations"]["weir.dev/config"])
        assert config["workload"] == f"{namespace}/Pod/app"
        assert config["defaultAction"] == "Deny"
        assert config["stream"]["server"].startswith("weir-stream.")
        assert pod["metadata"]["labels"]["weir.dev/captured"] == "true"

    def test_its_sidecar_then_has_nothing_new_to_hear(self, objects, namespace, serving):
        config = json.loads(inject(objects)["metadata"]["annotations"]["weir.dev/config"])
        token = serving.token(namespace, "app")
        with serving.connect(namespace, "app", token, revision=config["revision"]) as sidecar:
            assert sidecar.exceptions() == Exceptions()
            assert sidecar.hears_nothing(0.5)

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"metadata": {"annotations": {"weir.dev/config": "{}"}}}, "weir.dev/config"),
            ({"metadata": {"labels": {"weir.dev/captured": None}}}, "weir.dev/captured"),
            ({"spec": {"initContainers": [{"name": "weir-sidecar", "image": "example.invalid/evil"}]}}, "weir-sidecar"),
        ],
    )
    def test_what_steers_its_proxy_is_refused(self, objects, namespace, change, word):
        inject(objects)
        header = {"Content-Type": "application/strategic-merge-patch+json"}
        path = f"/api/v1/namespaces/{namespace}/pods/app"
        answer = objects.cluster.request("PATCH", path, change, headers=header)
        assert answer.status_code == 403
        assert word in answer.json()["message"]

    def test_other_changes_are_not(self, objects, namespace):
        inject(objects)
        objects.cluster.kubectl("label", "pod", "app", "-n", namespace, "tier=a")
        objects.cluster.kubectl("set", "image", "pod/app", "-n", namespace, "app=example.invalid/app:2")

    def test_an_ephemeral_container_as_the_proxy_is_refused(self, objects, namespace):
        inject(objects)
        path = f"/api/v1/namespaces/{namespace}/pods/app/ephemeralcontainers"
        header = {"Content-Type": "application/strategic-merge-patch+json"}

        def debug(name, **context):
            container = {"name": name, "image": "example.invalid/debug", "securityContext": context}
            return objects.cluster.request(
                "PATCH", path, {"spec": {"ephemeralContainers": [container]}}, headers=header
            )

        assert debug("a", runAsUser=15801).status_code == 403
        assert debug("b", capabilities={"add": ["NET_ADMIN"]}).status_code == 403
        assert debug("c", runAsUser=1000).ok

    def test_a_policy_that_cannot_be_read_is_refused(self, objects):
        inject(objects)
        with pytest.raises(AssertionError, match=r"spec\.rules"):
            objects.policy("bad", rules=[{"action": "Deny", "match": {"hosts": ["a b"]}}])

    def test_a_trust_policy_that_is_not_there_is_warned_of(self, objects, namespace):
        inject(objects)
        policy = {
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "InterceptionPolicy",
            "metadata": {"name": "ref", "namespace": namespace},
            "spec": {"trustPolicyRef": {"name": "nothing"}},
        }
        told = objects.cluster.run_kubectl("apply", "-f", "-", stdin=json.dumps(policy)).stderr
        assert "Warning: spec.trustPolicyRef" in told


class TestSummary:
    def test_each_replica_counts_who_runs_what(self, cluster, home, another, objects, namespace):
        replica = Objects(cluster, home).pod("weir-serving-x", captured=False)
        identity = ("weir-serving-x", replica["metadata"]["uid"])
        objects.policy(defaultAction="Deny")
        objects.pod("a")
        key = f"InterceptionPolicy/{namespace}/web"
        path = f"/api/v1/namespaces/{home}/configmaps/weir-stream-weir-serving-x"

        def told():
            answer = cluster.request("GET", path)
            return json.loads(answer.json()["data"]["summary"])["policies"].get(key) if answer.ok else None

        serving = another(replica=identity)
        with serving.connect(namespace, "a", serving.token(namespace, "a")) as sidecar:
            revision = sidecar.config(lambda new: new.config.default_action is Action.DENY).config.revision
            wait_for("it is connected", lambda: told() == {"connected": 1, "current": 0})
            sidecar.tell(Applied(revision, after_restart=("capture.mode",)))
            sidecar.tell(Applied(revision, problem="no room"))
            time.sleep(2.5)
            assert told() == {"connected": 1, "current": 0}
            sidecar.tell(Applied(revision))
            wait_for("it is current", lambda: told() == {"connected": 1, "current": 1})
        wait_for("it is gone", lambda: told() is None)
        owner = cluster.request("GET", path).json()["metadata"]["ownerReferences"][0]
        assert owner["uid"] == identity[1]
        Objects(cluster, home).remove_pod("weir-serving-x")
