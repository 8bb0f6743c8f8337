"""A credential of a Secret reaches the host that the Secret names, and nobody else: not the pod, not what is told of it."""

import base64
import hashlib
import json
import secrets

import pytest
import yaml

from lab.lab import ROOT
from lab.pki import Authority, LeafShape
from lab.running import wait_for
from lab.weir_cluster import SYSTEM
from lab.workloads import container, deployment, pod, policy

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(400)]

PROGRAMS = ROOT / "tests/lab/programs"
MARK = "weir-placeholder-of-the-agent"
SLEEPER = {"command": ["python3", "-c", "import time; time.sleep(1e6)"], "volumeMounts": []}
PATTERN = "weir-key-[0-9a-f]{32}"
DECOY = "weir-decoy-0123456789abcdef"
ROTATED_WITHIN = 180
"""Seconds. The kubelet looks at a pod's Secrets once a minute, or later."""
TOLD_WITHIN = 60
"""Seconds, from a request's end to its record in the container's log: nodes may be busy."""
STATES = ("good", "elsewhere", "unvouched", "silent", "absent")


def made_key():
    return f"weir-key-{secrets.token_hex(16)}"


class Agent:
    """A pod that may call one host, with keys that it cannot read."""

    def __init__(self, weir, namespace):
        self.weir = weir
        self.namespace = namespace
        self.authority = Authority.root("Keeper CA")
        self.ca_pem = self.authority.issued.pem.decode()
        self.host, self.other = (f"{name}.{namespace}.svc.cluster.local" for name in ("api", "other"))
        self.keys = {state: made_key() for state in (*STATES, "late")}

    def start(self):
        where = {"namespace": self.namespace}
        leaf = self.authority.leaf(LeafShape(names=(self.host, self.other)))
        pem = leaf.write(self.weir.cluster.directory / "keeper.pem").read_text()
        self.secret("keeper", **{"tls.pem": pem})
        self.secret("good", token=self.keys["good"], **{"token.hosts": self.host, "token.ca": self.ca_pem})
        self.secret("elsewhere", token=self.keys["elsewhere"], **{"token.hosts": self.other, "token.ca": self.ca_pem})
        self.secret("unvouched", token=self.keys["unvouched"], **{"token.hosts": self.host})
        self.secret("silent", token=self.keys["silent"])
        roots = {"upstream": {"roots": [{"pem": self.ca_pem}]}}
        keeper = container("keeper", "/keeper/tls.pem", volumeMounts=[{"name": "keeper", "mountPath": "/keeper"}])
        keeper["readinessProbe"] = {"tcpSocket": {"port": 8443}, "periodSeconds": 1}
        volumes = [{"name": "keeper", "secret": {"secretName": "keeper"}}]
        self.weir.apply(
            {
                "apiVersion": "weir.dev/v1alpha1",
                "kind": "TrustPolicy",
                "metadata": {"name": "keeper", **where},
                "spec": roots,
            },
            self.policy(*STATES),
            {**deployment("keeper", pod("keeper", keeper, volumes=volumes)), "metadata": {"name": "keeper", **where}},
            *(self._service(name) for name in ("api", "other")),
        )
        self.weir.wait_rolled_out(self.namespace, "keeper")
        env = [{"name": "DECOY", "value": DECOY}]
        containers = [
            container("caller", name=name, env=env, securityContext={"runAsUser": user}, **SLEEPER)
            for name, user in (("app", 1000), ("root", 0))
        ]
        agent = pod("agent", *containers, shareProcessNamespace=True, automountServiceAccountToken=False)
        agent = {**agent, "metadata": {**agent["metadata"], **where}}
        # A webhook that was installed this moment may be out of the API server's reach yet.
        wait_for("a captured pod", lambda: self._captured(agent), 60)
        self.weir.wait_phase(self.namespace, "agent", "Running", seconds=120)

    def _captured(self, agent):
        self.weir.apply(agent)
        if "initContainers" in self.weir.get("pod", "agent", "-n", self.namespace)["spec"]:
            return True
        self.weir.kubectl("delete", "pod", "agent", "-n", self.namespace, "--grace-period=1")
        return False

    def policy(self, *states):
        """Each state's key, for the path of its name; of the other host nothing but that it may be called."""
        rules = [
            {
                "name": state,
                "match": {"paths": [{"value": f"/{state}"}]},
                "credentialFrom": {
                    "header": "Authorization",
                    "placeholder": MARK,
                    "secret": {"name": state, "key": "token"},
                },
            }
            for state in states
        ]
        return policy(
            "agent", self.namespace, "agent", defaultAction="Deny", failureMode="Closed", verifyAddress="Deny",
            hardenContainers=True,
            rules=[
                {"name": "api", "match": {"hosts": [self.host]}, "action": "Intercept", "http": rules},
                {"name": "other", "match": {"hosts": [self.other]}, "action": "Intercept"},
            ],
        )  # fmt: skip

    def secret(self, name, **data):
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
        metadata = {"name": name, "namespace": self.namespace}
        self.weir.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded})

    def run(self, program, *args, name="app", pod="agent"):
        """What a program says that is run in one of the agent's containers."""
        text = (PROGRAMS / f"{program}.py").read_text()
        return self.weir.kubectl("exec", pod, "-n", self.namespace, "-c", name, "--", "python3", "-c", text, *args)

    def send(self, *requests, host=None, scheme="https"):
        """Send them on one connection; the answers, and what the records of the requests say went wrong."""
        before = len(self.records())
        said = self.run("send", f"{scheme}://{host or self.host}", *requests)
        wait_for("the records of the requests", lambda: len(self.records()) >= before + len(requests), TOLD_WITHIN)
        return [json.loads(line) for line in said.splitlines()], [one["error"] for one in self.records()[before:]]

    def records(self):
        text = self.weir.kubectl("logs", "agent", "-n", self.namespace, "-c", "weir-sidecar")
        return [json.loads(line) for line in text.splitlines() if line.startswith('{"record":"request"')]

    def _service(self, name):
        ports = [
            {"name": "https", "port": 443, "targetPort": 8443},
            {"name": "http", "port": 80, "targetPort": 8080},
        ]
        metadata = {"name": name, "namespace": self.namespace}
        spec = {"selector": {"app": "keeper"}, "ports": ports}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def agent(weir):
    with weir.cluster.namespace(prefix="weir-agent") as namespace:
        made = Agent(weir, namespace)
        made.start()
        yield made


def get(path, host, *fields, mark=MARK):
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *fields]
    if mark:
        lines.append(f"Authorization: Bearer {mark}")
    return "\r\n".join([*lines, "", ""])


def digest(key):
    return hashlib.sha256(f"Bearer {key}".encode()).hexdigest()


def got(answer):
    return json.loads(answer["body"])["digest"]


def test_the_host_that_the_secret_names_gets_the_key(agent):
    (bare, marked), _ = agent.send(get("/good", agent.host, mark=None), get("/good", agent.host))
    assert bare["status"] == marked["status"] == 200
    assert got(bare) == hashlib.sha256(b"").hexdigest()
    assert got(marked) == digest(agent.keys["good"])


def refusals(agent, *requests, **how):
    answers, errors = agent.send(*requests, **how)
    return [one["status"] for one in answers], errors


@pytest.mark.parametrize(
    ("state", "status", "error"),
    [
        ("elsewhere", 403, "credential_host_not_named"),
        ("silent", 403, "credential_host_not_named"),
        ("unvouched", 403, "credential_root_not_named"),
        ("absent", 502, "credential_missing"),
    ],
)
def test_a_secret_that_does_not_allow_it_is_not_sent(agent, state, status, error):
    assert refusals(agent, get(f"/{state}", agent.host)) == ([status], [error])


def test_another_host_gets_neither_key_nor_placeholder(agent):
    redirect = get("/good", agent.host, f"X-Away: https://{agent.other}/good")
    (away,), _ = agent.send(redirect)
    assert (away["status"], away["location"]) == (302, f"https://{agent.other}/good")
    assert got(away) == digest(agent.keys["good"])
    misused = ([403], ["placeholder_misused"])
    assert refusals(agent, get("/good", agent.other), host=agent.other) == misused
    # The next request of a connection that may have the key.
    statuses, errors = refusals(agent, get("/good", agent.host), get("/good", agent.other))
    assert (statuses, errors) == ([200, 403], [None, "placeholder_misused"])


def test_no_other_form_of_a_request_gets_round_it(agent):
    absolute = get(f"https://{agent.other}/good", agent.other)
    assert refusals(agent, absolute) == ([403], ["placeholder_misused"])
    disagreeing = get(f"https://{agent.host}/good", agent.other)
    statuses, _ = refusals(agent, disagreeing)
    assert statuses == [400]
    (absolute_own,), _ = agent.send(get(f"https://{agent.host}/good", agent.host))
    assert got(absolute_own) == digest(agent.keys["good"])
    connect = f"CONNECT {agent.other}:443 HTTP/1.1\r\nHost: {agent.other}:443\r\nAuthorization: Bearer {MARK}\r\n\r\n"
    assert refusals(agent, connect) == ([403], ["placeholder_misused"])


def test_it_is_never_sent_in_the_clear(agent):
    assert refusals(agent, get("/good", agent.host), scheme="http") == ([403], ["credential_misdirected"])


def test_the_placeholder_is_refused_everywhere_else(agent):
    misused = ([403], ["placeholder_misused"])
    assert refusals(agent, get(f"/good/{MARK}", agent.host, mark=None)) == misused
    assert refusals(agent, get(f"/good?a={MARK}", agent.host, mark=None)) == misused
    assert refusals(agent, get("/good", agent.host, f"X-Mine: {MARK}", mark=None)) == misused
    head = f"POST /good HTTP/1.1\r\nHost: {agent.host}\r\nContent-Length: {len(MARK) + 2}\r\n\r\n"
    split = f"{head}a={MARK[:9]}<pause>{MARK[9:]}"
    assert refusals(agent, split) == ([0], ["placeholder_misused"])


def test_nothing_that_the_pod_can_read_has_it(agent):
    port = "15802"
    for name in ("app", "root"):
        assert "/proc/" in agent.run("search", "weir-deco[y]-", port, name=name)
        said = agent.run("search", PATTERN, port, name=name)
        looked = int(said.partition("looked ")[2].split()[0])
        assert looked > 1000, said
        assert said.rstrip().endswith("found"), said


def test_nothing_that_is_told_has_it(agent):
    weir, namespace = agent.weir, agent.namespace
    told = {
        f"log of {name}": weir.kubectl("logs", "agent", "-n", namespace, "-c", name)
        for name in ("weir-init", "weir-sidecar", "app", "root")
    }
    for kind in ("pods", "events", "interceptionpolicies", "trustpolicies", "trustexceptions", "configmaps"):
        told[kind] = weir.kubectl("get", kind, "-n", namespace, "-o", "yaml")
        if kind != "events":
            told[f"{kind} of the system"] = weir.kubectl("get", kind, "-n", SYSTEM, "-o", "yaml")
    for name in ("operator", "serving"):
        told[f"log of the {name}"] = weir.kubectl("logs", f"deployment/weir-{name}", "-n", SYSTEM, "--all-containers")
    probe = f"/api/v1/namespaces/{namespace}/pods/agent:15804/proxy/metrics"
    told["metrics"] = weir.kubectl("get", "--raw", probe)
    told["flows"] = weir.weir("flows", "-n", namespace, "--pod", "agent", "--last", "100000", "-o", "json")
    told["status"] = weir.weir("status", "-n", namespace)
    assert "weir_requests" in told["metrics"] or "weir_http" in told["metrics"]
    assert agent.host in told["flows"]
    for where, text in told.items():
        for key in agent.keys.values():
            assert key not in text, where
            assert base64.b64encode(key.encode()).decode() not in text, where


def test_secrets_are_followed_as_they_change(agent):
    agent.keys["absent"] = made_key()
    agent.secret("absent", token=agent.keys["absent"], **{"token.hosts": agent.host, "token.ca": agent.ca_pem})
    new = made_key()
    agent.secret("good", token=new, **{"token.hosts": agent.host, "token.ca": agent.ca_pem})

    def followed():
        (good, absent), _ = agent.send(get("/good", agent.host), get("/absent", agent.host))
        return good["status"] == absent["status"] == 200 and (got(good), got(absent)) == (
            digest(new), digest(agent.keys["absent"]),
        )  # fmt: skip

    wait_for("the new keys", followed, ROTATED_WITHIN)
    agent.keys["good"] = new


def test_a_secret_that_a_policy_names_later_waits_for_the_pods_next_start_and_says_so(agent):
    agent.secret("late", token=agent.keys["late"], **{"token.hosts": agent.host, "token.ca": agent.ca_pem})
    agent.weir.apply(agent.policy(*STATES, "late"))

    def told():
        status = agent.weir.get("interceptionpolicy.weir.dev", "agent", "-n", agent.namespace)["status"]
        condition = next(one for one in status["conditions"] if one["type"] == "Programmed")
        return condition["status"] == "False" and "credentialFrom.secret late/token" in condition["message"]

    wait_for("the policy's status to name what waits", told, 30)
    assert refusals(agent, get("/late", agent.host)) == ([502], ["credential_missing"])
    said = agent.weir.kubectl("logs", "agent", "-n", agent.namespace, "-c", "weir-sidecar")
    assert "when the pod starts anew also credentialFrom.secret late/token" in said


def test_the_sidecar_alone_has_the_secrets_mounted(agent):
    spec = agent.weir.get("pod", "agent", "-n", agent.namespace)["spec"]
    having = [
        one["name"]
        for one in (*spec["initContainers"], *spec["containers"])
        if "weir-credentials" in yaml.safe_dump(one["volumeMounts"])
    ]
    assert having == ["weir-sidecar"]


@pytest.mark.parametrize("security", [{"fsGroup": 2000}, {"runAsUser": 1000, "runAsNonRoot": True}])
def test_a_pod_that_starts_later_has_it_whatever_its_security_context(agent, security):
    name = "-".join(["later", *map(str.lower, security)])
    later = pod(name, container("caller", **SLEEPER), securityContext=security)
    metadata = {"name": name, "namespace": agent.namespace, "labels": {"app": "agent"}}
    agent.weir.apply({**later, "metadata": metadata})
    agent.weir.wait_phase(agent.namespace, name, "Running", seconds=120)
    said = json.loads(agent.run("send", f"https://{agent.host}", get("/late", agent.host), pod=name))
    assert got(said) == digest(agent.keys["late"])
