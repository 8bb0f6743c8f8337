"""The cluster that these tests run against.

By default it is one of our own: etcd and kube-apiserver, found the way envtest finds them (`KUBEBUILDER_ASSETS`, default
/usr/local/kubebuilder/bin; else on PATH), started once on free loopback ports, with no controllers and no nodes. Where
they are missing, the tests are skipped, and the summary counts them.

With WEIR_TEST_CLUSTER=kubeconfig it is the one that KUBECONFIG names, with its current context. A KUBECONFIG alone is
not enough: nobody's cluster is touched because a variable happened to be set. The tests make namespaces, custom resource
definitions and other cluster-scoped objects in it, and remove them; those that need to stop the API server are skipped.
"""

import os
from collections.abc import Iterator

import pytest

from lab.given_cluster import given_cluster
from lab.kube import ASSETS, Cluster, OwnCluster, missing
from lab.lab import ROOT

CRDS = ROOT / "charts/weir/files/crds"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """An API server for all tests; each makes namespaces of its own in it."""
    chosen = os.environ.get("WEIR_TEST_CLUSTER", "own")
    if chosen == "kubeconfig":
        with given_cluster() as given:
            yield given
    elif chosen == "own":
        if lacking := missing():
            pytest.skip(f"no {', '.join(lacking)} in {ASSETS} (KUBEBUILDER_ASSETS) or on PATH")
        with OwnCluster() as made:
            yield made
    else:
        pytest.fail(f"WEIR_TEST_CLUSTER is {chosen!r}; allowed: own, kubeconfig")


@pytest.fixture
def own_cluster(cluster: Cluster) -> OwnCluster:
    """The cluster, where the test may stop its API server. A test that does starts it again, whatever happens."""
    if not isinstance(cluster, OwnCluster):
        pytest.skip("stops the API server, which only a cluster of our own allows")
    return cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a new namespace with a default service account; gone after the test, with all that is in it."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def crds(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, with Weir's custom resource definitions. Those that it has already are left as they are."""
    installed = set(cluster.kubectl("get", "customresourcedefinitions", "-o", "name").split())
    added = []
    for path in sorted(CRDS.glob("*.yaml")):
        name = f"customresourcedefinition.apiextensions.k8s.io/{path.stem}"
        if name not in installed:
            cluster.kubectl("apply", "--server-side", "-f", str(path))
            added.append(name)
    try:
        if added:
            cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", *added)
        yield cluster
    finally:
        if added:
            cluster.kubectl("delete", "--wait=false", *added)
