"""The cluster that the other tests stand on is what they take it for."""

import base64
import json
import subprocess

import pytest

from lab.kube import Cluster, KubectlError, OwnCluster, binary

pytestmark = pytest.mark.cluster


def claims(token: str) -> dict:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def make_pod(cluster: Cluster, namespace: str, name: str) -> None:
    cluster.kubectl("run", name, "-n", namespace, "--image=example.invalid/none", "--restart=Never")


def test_a_token_is_bound_to_its_pod_and_audience(cluster, namespace):
    make_pod(cluster, namespace, "web")
    found = claims(cluster.token(namespace, "default", audience="weir.test", pod="web"))
    assert found["aud"] == ["weir.test"]
    assert found["kubernetes.io"]["pod"]["name"] == "web"


def test_a_service_account_may_do_nothing_by_itself(cluster, namespace):
    kubeconfig = cluster.kubeconfig_for(namespace, "default")
    argv = [str(binary("kubectl")), "get", "pods", "--kubeconfig", str(kubeconfig)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"system:serviceaccount:{namespace}:default" in done.stderr
    assert "is forbidden" in done.stderr


def test_a_failing_kubectl_says_why(cluster):
    with pytest.raises(KubectlError, match=r'namespaces "no-such-namespace" not found'):
        cluster.kubectl("get", "namespace", "no-such-namespace")


def test_a_namespace_goes_with_all_that_is_in_it(cluster):
    with cluster.namespace({"team": "blue"}) as name:
        make_pod(cluster, name, "web")
        cluster.kubectl("create", "configmap", "some", "-n", name)
        assert name in cluster.kubectl("get", "namespaces", "-l", "team=blue", "-o", "name")
    if isinstance(cluster, OwnCluster):
        assert name not in cluster.kubectl("get", "namespaces", "-o", "name")
        assert name not in cluster.kubectl("get", "pods,configmaps", "-A")


def test_what_is_stored_outlives_the_api_server(own_cluster, namespace):
    own_cluster.kubectl("create", "configmap", "kept", "-n", namespace)
    own_cluster.stop_api_server()
    try:
        with pytest.raises(KubectlError, match="refused"):
            own_cluster.kubectl("get", "namespaces")
    finally:
        own_cluster.start_api_server()
    assert "kept" in own_cluster.kubectl("get", "configmaps", "-n", namespace)
