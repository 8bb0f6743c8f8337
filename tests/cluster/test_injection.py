"""What a real API server says to injected pods."""

import json

import pytest
import yaml

from golden.pod_cases import CASES, NAMESPACE, PLAIN, PLAN, SETTINGS
from lab.kube import Cluster
from lab.lab import ROOT
from weir_operator.injection.inject import Injected, inject

pytestmark = pytest.mark.cluster
GOLDEN = ROOT / "tests/golden/pods"


def created(cluster: Cluster, namespace: str, pod: dict) -> dict:
    """The pod as the API server would keep it, with all defaults; it is not kept."""
    given = {**pod, "metadata": {**pod["metadata"], "namespace": namespace}}
    text = cluster.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(given))
    return json.loads(text)


@pytest.fixture(scope="module")
def namespace(cluster: Cluster):
    with cluster.namespace() as name:
        yield name


@pytest.mark.parametrize("name", CASES)
def test_golden_pods_are_taken(cluster: Cluster, namespace: str, name: str) -> None:
    pod = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())
    kept = created(cluster, namespace, pod)
    assert [one["name"] for one in kept["spec"]["initContainers"]][:2] == ["weir-init", "weir-sidecar"]


@pytest.mark.parametrize("name", CASES)
def test_a_second_call_after_the_servers_defaults_changes_nothing(cluster: Cluster, namespace: str, name: str) -> None:
    pod, plan, settings = CASES[name]
    first = inject(pod, NAMESPACE, plan, settings)
    assert isinstance(first, Injected)
    kept = created(cluster, namespace, first.pod)
    for field in ("uid", "creationTimestamp"):
        del kept["metadata"][field]
    again = inject(kept, NAMESPACE, plan, settings)
    assert isinstance(again, Injected)
    assert again.warnings == first.warnings
    spec = created(cluster, namespace, again.pod)["spec"]
    for part in ("initContainers", "containers", "volumes"):
        assert by_name(spec[part]) == by_name(kept["spec"][part])


def by_name(items: list[dict]) -> dict[str, dict]:
    """Volumes and mounts that the server adds are behind ours the first time, and before them the second time."""
    return {
        item["name"]: {
            key: sorted(value, key=lambda mount: mount["mountPath"]) if key == "volumeMounts" else value
            for key, value in item.items()
        }
        for item in items
    }


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_in_cni_mode_the_strictest_pod_security_is_satisfied(cluster: Cluster, level: str) -> None:
    injected = inject(*CASES["cni-restricted"][:1], NAMESPACE, *CASES["cni-restricted"][1:])
    assert isinstance(injected, Injected)
    with cluster.namespace(labels={"pod-security.kubernetes.io/enforce": level}) as strict:
        kept = created(cluster, strict, injected.pod)
    for container in kept["spec"]["initContainers"]:
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["runAsUser"] == 15801


def test_pod_security_refuses_the_capabilities_and_names_our_containers(cluster: Cluster) -> None:
    injected = inject(PLAIN, NAMESPACE, PLAN, SETTINGS)
    assert isinstance(injected, Injected)
    with cluster.namespace(labels={"pod-security.kubernetes.io/enforce": "baseline"}) as strict:
        given = {**injected.pod, "metadata": {**injected.pod["metadata"], "namespace": strict}}
        result = cluster.run_kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(given))
    assert result.returncode != 0
    # docs/injection.md shows this message.
    documented = " ".join((ROOT / "docs/injection.md").read_text().split())
    assert result.stderr.partition("pods ")[2].strip() in documented
