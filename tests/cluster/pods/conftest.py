"""Weir installed from the chart, once for all tests, in the given cluster (WEIR_TEST_CLUSTER=kubeconfig), whose nodes have
the images that `make images` builds, and an HTTPS origin in it."""

from collections.abc import Iterator

import pytest

from lab.given_cluster import NO_NODE, need_helm
from lab.kube import Cluster, OwnCluster
from lab.origin_pod import Origin
from lab.weir_cluster import WeirCluster, installed


@pytest.fixture(scope="session")
def weir(cluster: Cluster) -> Iterator[WeirCluster]:
    """Weir in a cluster with nodes."""
    if isinstance(cluster, OwnCluster):
        pytest.skip(NO_NODE)
    need_helm()
    with installed(cluster) as made:
        yield made


@pytest.fixture(scope="session")
def origin(weir: WeirCluster) -> Iterator[Origin]:
    """The server that applications call."""
    with weir.cluster.namespace(prefix="weir-origin") as namespace:
        made = Origin(weir, namespace)
        made.start()
        yield made


@pytest.fixture
def shop(weir: WeirCluster, origin: Origin) -> Iterator[str]:
    """A namespace for applications, whose captured pods' upstreams are verified with the origin's CA."""
    with weir.cluster.namespace(prefix="weir-shop") as namespace:
        origin.introduce(namespace)
        yield namespace
