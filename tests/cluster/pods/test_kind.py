"""kind/up in a given cluster: the samples that Weir's own image can run do what they are there to show."""

import json
import os
import subprocess

import pytest
import yaml

from lab.kube import binary
from lab.lab import ROOT
from lab.place import Mode
from lab.weir_cluster import CHART, SYSTEM
from lab.workloads import IMAGE

pytestmark = [pytest.mark.cluster, pytest.mark.pods]

NAMESPACE = "weir-samples"
OTHERS = "client-(node|java|go)"
"""They need images of their own."""


@pytest.fixture
def overlay(tmp_path):
    """The samples, with Weir's own image in place of Python's."""
    name, _, tag = IMAGE.rpartition(":")
    left_out = {
        "target": {"kind": "Deployment", "name": OTHERS},
        "patch": "$patch: delete\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: any}\n",
    }
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(ROOT / "kind/samples", tmp_path)],
        "images": [{"name": "docker.io/library/python", "newName": name, "newTag": tag}],
        "patches": [left_out],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return tmp_path


def run(weir, script, *args):
    kubectl = binary("kubectl")
    environment = {
        **os.environ,
        "KUBECONFIG": str(weir.cluster.kubeconfig),
        "PATH": f"{kubectl.parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        [ROOT / "kind" / script, "--no-cluster", *args],
        capture_output=True, text=True, check=False, timeout=240, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def told(weir, workload, container="client"):
    log = weir.kubectl("logs", workload, "-n", NAMESPACE, "-c", container)
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", Mode)
def test_the_samples_run_and_are_removed(weir, overlay, mode):
    values = [part for value in mode.values for part in ("--set", value)]
    run(weir, "up", "--samples", overlay, "--", *values)
    try:
        (call, *_) = told(weir, "deployment/client-python")
        assert call["status"] == 200
        assert call["issuer"].startswith("Weir CA ")

        calls = told(weir, "deployment/client-pinned")
        assert next(call["issuer"] for call in calls if "status" in call) == "Samples CA"
        assert len([call for call in calls if "error" in call]) <= 2
        learned = weir.get("trustexceptions.weir.dev", "-n", NAMESPACE)["items"]
        assert {one["spec"]["workload"]["name"] for one in learned} == {"client-pinned"}

        assert [call["status"] for call in told(weir, "job/once")] == [200]
        (data,) = told(weir, "pod/download", "data")
        assert data["issuer"].startswith("Weir CA ")
        for number in (0, 1):
            assert told(weir, f"pod/peers-{number}")[-1]["status"] == 200

        attempts = {one["attempt"]: one["as_expected"] for one in told(weir, "deployment/sandbox", "agent")[:8]}
        assert len(attempts) == 8
        assert all(attempts.values())

        for policy in weir.get("interceptionpolicies.weir.dev", "-n", NAMESPACE)["items"]:
            assert policy["status"]["pods"]["missed"] == 0
        run(weir, "up", "--samples", overlay, "--", *values)
    finally:
        said = run(weir, "down")
    try:
        assert "stay" in said
        assert NAMESPACE not in weir.kubectl("get", "namespaces", "-o", "name")
        assert "weir" not in weir.helm("list", "-n", SYSTEM, "-q").split()
    finally:
        # For the tests after this one.
        weir.helm("install", "weir", str(CHART), "-n", SYSTEM, "--wait", "--timeout", "120s")
