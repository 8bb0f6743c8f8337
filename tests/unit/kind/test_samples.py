"""The sample workloads: what Kubernetes, Weir's policies and their own programs say of them."""

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from lab.clients import GO, TOOLS
from lab.kube import binary
from lab.pki import Authority, LeafShape
from weir_operator.cluster.facts import NamespaceFacts
from weir_operator.cluster.policies import Policies
from weir_sidecar.contract.config import Action, FailureMode
from weir_sidecar.contract.http import RequestAction

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "kind/samples"
PROGRAMS = SAMPLES / "programs"
NAMESPACE = NamespaceFacts("weir-samples", {})
FILES = sorted(path for path in SAMPLES.rglob("*.yaml") if path.name != "kustomization.yaml")
OBJECTS = [obj for path in FILES for obj in yaml.safe_load_all(path.read_text())]
WORKLOADS = ("Deployment", "StatefulSet", "Job", "Pod")


def of_kind(*kinds):
    return [obj for obj in OBJECTS if obj["kind"] in kinds]


def policies():
    objects = (
        obj | {"metadata": {**obj["metadata"], "namespace": "weir-samples", "generation": 1}}
        for obj in of_kind("InterceptionPolicy", "TrustPolicy")
    )
    return Policies.of(objects)


def pod_of(obj):
    return obj if obj["kind"] == "Pod" else obj["spec"]["template"]


def containers():
    for obj in of_kind(*WORKLOADS):
        spec = pod_of(obj)["spec"]
        yield from spec.get("initContainers", ())
        yield from spec["containers"]


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_knows_every_object(version):
    plain = [obj for obj in OBJECTS if not obj["apiVersion"].startswith("weir.dev/")]
    assert {"Namespace", "Service", *WORKLOADS} == {obj["kind"] for obj in plain}
    for obj in plain:
        kubernetes_validate.validate(obj, version, strict=True)


def test_every_file_is_applied():
    for directory in (SAMPLES, SAMPLES / "policies"):
        listed = yaml.safe_load((directory / "kustomization.yaml").read_text())
        there = {path.name for path in directory.iterdir() if path in FILES or (path / "kustomization.yaml").exists()}
        assert set(listed["resources"]) == there
    (programs,) = yaml.safe_load((SAMPLES / "kustomization.yaml").read_text())["configMapGenerator"]
    assert set(programs["files"]) == {f"programs/{path.name}" for path in PROGRAMS.iterdir() if path.is_file()}


@pytest.mark.skipif(binary("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_them_with_all_programs():
    done = subprocess.run(
        [binary("kubectl"), "kustomize", SAMPLES], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    built = list(yaml.safe_load_all(done.stdout))
    (programs,) = (obj for obj in built if obj["kind"] == "ConfigMap")
    assert programs["data"]["client.py"] == (PROGRAMS / "client.py").read_text()
    assert {obj["metadata"].get("namespace") for obj in built if obj["kind"] != "Namespace"} == {"weir-samples"}


def test_images_are_public_ones_by_their_tag():
    for container in containers():
        registry, _, rest = container["image"].partition("/")
        name, _, tag = rest.partition(":")
        assert registry == "docker.io"
        assert name.startswith("library/")
        assert tag not in ("", "latest")


def test_every_program_that_is_called_is_there():
    called = {
        word.removeprefix("/programs/")
        for container in containers()
        for word in container["command"]
        if word.startswith("/programs/")
    }
    assert called == {path.name for path in PROGRAMS.iterdir() if path.is_file()}


def test_policies_are_valid_and_without_remark():
    found = policies()
    assert not any(found.problems.values())
    assert not any(found.notices.values())


def test_every_pod_but_the_origin_is_captured():
    found = policies()
    for obj in of_kind(*WORKLOADS):
        labels = pod_of(obj)["metadata"]["labels"]
        assert (found.plan(NAMESPACE, labels) is None) is (labels["app"] == "origin"), labels


def test_the_sandbox_may_call_one_host():
    config = policies().plan(NAMESPACE, {"app": "sandbox"}).config
    assert (config.default_action, config.failure_mode) == (Action.DENY, FailureMode.CLOSED)
    (rule,) = config.rules
    assert rule.match.hosts == ("origin.weir-samples.svc.cluster.local",)


def test_the_sandbox_sends_what_its_policy_replaces_by_a_key_of_a_secret():
    plan = policies().plan(NAMESPACE, {"app": "sandbox"})
    key, nothing_else = plan.config.rules[0].http
    assert f'PLACEHOLDER = "{key.credential.placeholder}"' in (PROGRAMS / "sandbox.py").read_text()
    assert nothing_else.action is RequestAction.DENY
    assert plan.injection.credentials == (("agent-key", "token"),)
    assert "agent-key" not in yaml.safe_dump(
        [obj for obj in of_kind("Deployment") if obj["metadata"]["name"] == "sandbox"]
    )


def test_the_sandbox_has_a_user_of_its_own_and_no_capability():
    (sandbox,) = (obj for obj in of_kind("Deployment") if obj["metadata"]["name"] == "sandbox")
    spec = pod_of(sandbox)["spec"]
    context = spec["containers"][0]["securityContext"]
    assert (context["runAsUser"], context["capabilities"]) == (1000, {"drop": ["ALL"]})
    assert spec["automountServiceAccountToken"] is False


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The origin, on a port of this machine: its URL, the file of its CA, and a Java trust store with it."""
    directory = tmp_path_factory.mktemp("origin")
    authority = Authority.root("Samples CA")
    pem = authority.leaf(LeafShape(names=("localhost",))).write(directory / "origin.pem")
    (directory / "ca.crt").write_bytes(authority.issued.pem)
    shutil.copytree(PROGRAMS, directory / "..data")
    for program in (directory / "..data").iterdir():
        # As a ConfigMap's volume has them.
        (directory / program.name).symlink_to(f"..data/{program.name}")
    (directory / "token").write_text("the-token\n")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, directory / "origin.py", pem, pem, directory / "token", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert server.stdout.readline() == b"serving\n"
        yield f"https://localhost:{port}", directory
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
        server.stdout.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**more):
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return kept | {"GOCACHE": str(TOOLS / "go-cache"), "GOTOOLCHAIN": "local", "GOPROXY": "off", **more}


def trusting(language, directory):
    ca = directory / "ca.crt"
    if language == "node":
        return {"NODE_EXTRA_CA_CERTS": str(ca)}
    if language == "java":
        store = directory / "store.jks"
        if not store.exists():
            # JKS is read without its password, as the one in pods is.
            words = [
                "-importcert",
                "-noprompt",
                "-alias",
                "ca",
                "-file",
                ca,
                "-storetype",
                "JKS",
                "-storepass",
                "changeit",
            ]
            subprocess.run(["keytool", *words, "-keystore", store], capture_output=True, check=True, timeout=60)
        return {"JAVA_TOOL_OPTIONS": f"-Djavax.net.ssl.trustStore={store}"}
    return {"SSL_CERT_FILE": str(ca)}


LANGUAGES = {
    "python": ([sys.executable], "client.py"),
    "node": (["node"], "client.mjs"),
    "java": (["java"], "Client.java"),
    "go": ([str(GO) if GO.exists() else "go", "run"], "client.go"),
}


def call(language, url, directory, *, trusts):
    command, program = LANGUAGES[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{language} is not installed; scripts/test-clients does it")
    more = trusting(language, directory) if trusts else {}
    done = subprocess.run(
        [*command, directory / program, url, "1"],
        capture_output=True, text=True, check=False, timeout=110, env=environment(**more),
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_client_tells_who_signed_what_it_was_shown(language, served):
    url, directory = served
    status, told = call(language, f"{url}/", directory, trusts=True)
    assert status == 0, told
    assert told == {"client": language, "url": f"{url}/", "status": 200, "issuer": "Samples CA"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_client_that_does_not_trust_the_ca_says_so(language, served):
    url, directory = served
    status, told = call(language, f"{url}/", directory, trusts=False)
    assert status == 1
    assert set(told) == {"client", "url", "error"}


@pytest.mark.parametrize(("token", "status"), [("the-token", 200), ("another", 401), ("", 401)])
def test_an_account_is_for_who_has_the_token(served, token, status):
    url, directory = served
    context = ssl.create_default_context(cafile=directory / "ca.crt")
    connection = http.client.HTTPSConnection(url.removeprefix("https://"), context=context, timeout=10)
    connection.request("GET", "/account", headers={"Authorization": f"Bearer {token}"})
    assert connection.getresponse().status == status
    connection.close()


def test_a_download_is_saved_and_fits_its_checksum(served, tmp_path):
    url, directory = served
    for name in ("data", "data.sha256"):
        command = [sys.executable, directory / "client.py", f"{url}/{name}", "1", "--save", tmp_path / name]
        subprocess.run(
            command,
            capture_output=True,
            check=True,
            timeout=60,
            env=environment(SSL_CERT_FILE=str(directory / "ca.crt")),
        )
    subprocess.run(["sha256sum", "--check", "data.sha256"], cwd=tmp_path, capture_output=True, check=True, timeout=60)


def test_a_client_that_pins_trusts_its_own_file_alone(served):
    url, directory = served
    command = [sys.executable, directory / "client.py", "--roots", directory / "ca.crt", f"{url}/", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment())
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, 200)


def test_the_certificates_of_the_origin_are_good(tmp_path):
    subprocess.run([ROOT / "kind/certificate", tmp_path], capture_output=True, check=True, timeout=60)
    assert {path.name for path in tmp_path.iterdir()} == {"ca.crt", "tls.crt", "tls.key"}
    for host in ("origin", "elsewhere"):
        name = f"{host}.weir-samples.svc.cluster.local"
        words = ["-x509_strict", "-purpose", "sslserver", "-verify_hostname", name, "-CAfile", "ca.crt", "tls.crt"]
        subprocess.run(["openssl", "verify", *words], cwd=tmp_path, capture_output=True, check=True, timeout=60)
