"""kind/up and kind/down, with programs on PATH that only remember what they were asked."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
KIND = ROOT / "kind"
SYSTEM = ("bash", "cat", "dirname", "env", "grep", "mktemp", "rm", "sed")
VERSION = '{"major": "1", "minor": "36", "emulationMinor": "36"}'

_FAKE = """#!/bin/sh
echo "{name} $*" >>"{log}"
case "$*" in
{answers}
esac
"""


class Machine:
    """Programs that are there, what they answer, and what they were asked."""

    def __init__(self, home):
        self.home = home
        self.log = home / "asked"
        self.log.touch()
        self.path = home / "bin"
        self.path.mkdir()
        for program in SYSTEM:
            (self.path / program).symlink_to(shutil.which(program))

    def has(self, *programs, **answers):
        """`answers`: for the program of that name, from a pattern of its arguments to a line of shell."""
        for name in (*programs, *answers):
            cases = "\n".join(f"  {pattern}) {action} ;;" for pattern, action in answers.get(name, {}).items())
            fake = self.path / name
            fake.write_text(_FAKE.format(name=name, log=self.log, answers=cases))
            fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        return self

    def run(self, script, *args, cwd=ROOT, **environment):
        """The exit status, and all that was printed."""
        done = subprocess.run(
            [KIND / script, *args], capture_output=True, text=True, check=False, timeout=60, cwd=cwd,
            env={"PATH": str(self.path), "TMPDIR": str(self.home), **environment},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def asked(self, program):
        """The arguments of each call of a program."""
        return [line.removeprefix(f"{program} ") for line in self.log.read_text().splitlines()
                if line.startswith(f"{program} ")]  # fmt: skip


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def complete(machine, **more):
    """All that is needed, and a cluster that answers."""
    kubectl = {"*'get --raw /version'*": f"echo '{VERSION}'", "*'current-context'*": "echo theirs"}
    return machine.has("docker", "kind", "helm", "make", "openssl", **{"kubectl": kubectl, **more})


def test_all_that_is_missing_is_told_at_once_with_where_to_get_it(machine):
    status, said = machine.run("up")
    assert status == 1
    for program in ("kubectl", "helm", "openssl", "kind", "make", "docker"):
        assert f"missing: {program}" in said
    assert "https://kind.sigs.k8s.io" in said
    assert machine.log.read_text() == ""


def test_a_docker_without_its_daemon_is_not_enough(machine):
    complete(machine, docker={"info": "exit 1"})
    status, said = machine.run("up", KIND_EXPERIMENTAL_PROVIDER="docker")
    assert (status, machine.asked("kind")) == (1, [])
    assert "docker's daemon: start it" in said


@pytest.mark.parametrize("family", ["ipv4", "ipv6", "dual"])
def test_a_cluster_is_made_with_images_weir_and_samples(machine, family):
    complete(machine)
    status, said = machine.run("up", "--family", family, "--name", "try", "--", "--set", "serving.replicas=1")
    assert status == 0, said
    kind = machine.asked("kind")
    assert f"create cluster --name try --config {KIND}/clusters/{family}.yaml --wait 180s" in kind
    assert [call for call in kind if call.startswith("load")] == [
        f"load image-archive {ROOT}/build/images/{image}.tar --name try" for image in ("sidecar", "control")
    ]
    assert machine.asked("make") == [f"--no-print-directory -C {ROOT} images"]
    (helm,) = machine.asked("helm")
    assert helm.startswith(f"--kube-context kind-try upgrade --install weir {ROOT}/charts/weir --namespace weir-system")
    assert helm.endswith("--set serving.replicas=1")
    kubectl = machine.asked("kubectl")
    assert all(call.startswith("--context kind-try ") for call in kubectl)
    applied = [call.split()[-1] for call in kubectl if " apply " in call]
    assert applied == [f"{KIND}/samples/policies", f"{KIND}/samples"]
    assert "kind/down --name try" in said


def test_a_cluster_that_is_there_is_used(machine):
    complete(machine, kind={"'get clusters'": "echo weir"})
    status, said = machine.run("up", "--no-samples")
    assert status == 0, said
    assert not any(call.startswith("create") for call in machine.asked("kind"))
    assert not any(" apply " in call for call in machine.asked("kubectl"))


def test_without_docker_podman_is_used(machine):
    tell = 'echo "$KIND_EXPERIMENTAL_PROVIDER" >"$TMPDIR/provider"'
    complete(machine, docker={"info": "exit 1"}, podman={}, kind={"*": tell})
    status, said = machine.run("up", "--no-samples")
    assert status == 0, said
    assert (machine.home / "provider").read_text() == "podman\n"
    assert "with podman" in said


def test_a_given_cluster_needs_no_kind_and_no_docker(machine):
    machine.has("helm", kubectl={"*'get --raw /version'*": f"echo '{VERSION}'", "*'current-context'*": "echo theirs"})
    status, said = machine.run("up", "--no-cluster", "--no-samples", KUBECONFIG="/their.kubeconfig")
    assert status == 0, said
    assert "using the cluster theirs of /their.kubeconfig" in said
    (helm,) = machine.asked("helm")
    assert helm.startswith("upgrade --install weir ")


@pytest.mark.parametrize("script", ["up", "down"])
def test_no_cluster_is_touched_because_it_is_the_current_one(machine, script):
    complete(machine)
    status, said = machine.run(script, "--no-cluster")
    assert status == 1
    assert "KUBECONFIG, which is not set" in said
    assert (machine.asked("helm"), machine.asked("kubectl")) == ([], [])


def test_samples_are_found_from_where_the_caller_is(machine):
    complete(machine)
    own = machine.home / "own"
    own.mkdir()
    (own / "kustomization.yaml").touch()
    status, said = machine.run("up", "--samples", "own", cwd=machine.home)
    assert status == 0, said
    assert any(call.endswith("apply -k own") for call in machine.asked("kubectl"))


def test_an_old_kubernetes_is_refused(machine):
    complete(machine, kubectl={"*'get --raw /version'*": """echo '{"minor": "28+"}'"""})
    status, said = machine.run("up")
    assert (status, machine.asked("helm")) == (1, [])
    assert "Kubernetes 1.28, and Weir needs 1.29 or newer" in said


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--family", "both"], "--family is both; allowed: ipv4, ipv6, dual"),
        (["--samples", "nowhere"], "there is no nowhere/kustomization.yaml"),
        (["--name"], "--name needs a value"),
        (["--more"], "unknown option --more"),
    ],
)
def test_a_wrong_option_is_told_and_nothing_is_done(machine, args, told):
    complete(machine)
    status, said = machine.run("up", *args)
    assert status == 1
    assert told in said
    assert machine.log.read_text() == ""


def test_samples_that_do_not_get_ready_are_named(machine):
    complete(machine, kubectl={
        "*'get --raw /version'*": f"echo '{VERSION}'", "*condition=Available*": "exit 1", "*'get pods'*": "echo the pods",
    })  # fmt: skip
    status, said = machine.run("up")
    assert status == 1
    assert "the pods" in said
    assert "kubectl -n weir-samples describe pod" in said


def test_certificates_that_are_there_are_kept_and_others_made(machine):
    complete(machine)
    assert machine.run("up")[0] == 0
    assert machine.asked("openssl") == []
    kubectl = {"*'get --raw /version'*": f"echo '{VERSION}'", "*'get secret/origin'*": "exit 1"}
    complete(machine, kubectl=kubectl)
    assert machine.run("up")[0] == 0
    assert len(machine.asked("openssl")) == 3
    assert any("create secret tls origin" in call for call in machine.asked("kubectl"))


def test_down_removes_the_cluster(machine):
    complete(machine)
    assert machine.run("down", "--name", "try")[0] == 0
    assert machine.asked("kind") == ["delete cluster --name try"]
    assert machine.asked("kubectl") == []


def test_down_leaves_a_given_cluster_and_its_definitions(machine):
    complete(machine)
    status, said = machine.run("down", "--no-cluster", KUBECONFIG="/their.kubeconfig")
    assert status == 0
    assert machine.asked("kind") == []
    assert "uninstall weir --namespace weir-system --wait --timeout 180s" in machine.asked("helm")
    assert [call for call in machine.asked("kubectl") if call.startswith("delete")] == [
        "delete namespace weir-samples --ignore-not-found --timeout 180s"
    ]
    assert "docs/install.md#uninstall" in said


@pytest.mark.parametrize("script", ["up", "down"])
def test_help_is_printed(machine, script):
    status, said = machine.run(script, "--help")
    assert status == 0
    assert said.startswith(f"kind/{script} [OPTIONS]")


@pytest.mark.parametrize("family", ["ipv4", "ipv6", "dual"])
def test_a_cluster_has_its_family_and_a_node_for_pods(family):
    config = yaml.safe_load((KIND / "clusters" / f"{family}.yaml").read_text())
    assert (config["kind"], config["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    assert config["networking"]["ipFamily"] == family
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker"]


def shellcheck():
    beside = Path(sys.executable).with_name("shellcheck")
    return str(beside) if beside.exists() else shutil.which("shellcheck")


@pytest.mark.skipif(shellcheck() is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    scripts = [path for directory in (KIND, ROOT / "scripts") for path in directory.iterdir() if is_shell(path)]
    assert KIND / "up" in scripts
    # SC2016: a program in single quotes is for another shell.
    done = subprocess.run(
        [shellcheck(), "--exclude=SC2016", *scripts], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stdout


def is_shell(path):
    return path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash")
