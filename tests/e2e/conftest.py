"""All of Weir on a cluster that is given (WEIR_TEST_CLUSTER=kubeconfig and KUBECONFIG), whose nodes have the two images.

Nothing here knows what kind of cluster it is: the outside world is a pod of it, with addresses of both families, and what
has to be done on a node is done from a privileged pod. What the cluster lacks (a family) is skipped, and counted.

    WEIR_TEST_REGISTRY       where the images' names begin, if not as `make images` has them
    WEIR_TEST_NEXT_TAG       a further tag under which the nodes have the image weir/sidecar, to upgrade to
    WEIR_TEST_CNI_CONF_DIR, WEIR_TEST_CNI_BIN_DIR   where the nodes have their CNI configuration and plugins, if elsewhere
"""

import os
import time
from collections.abc import Iterator, Mapping

import pytest

from lab.given_cluster import NO_NODE, given_cluster, need_helm
from lab.kube import Cluster
from lab.node_hands import Hands
from lab.origin_pod import FAMILIES, Origin
from lab.place import Mode, Place, place
from lab.weir_cluster import WeirCluster, installed

ROLES = ("web", "passed", "denied", "pinned", "ruled")

type Names = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Of each family that the cluster has, the name and the address of each role of the origin."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The given cluster."""
    if os.environ.get("WEIR_TEST_CLUSTER") != "kubeconfig":
        pytest.skip(NO_NODE)
    need_helm()
    with given_cluster() as made:
        yield made


@pytest.fixture(scope="session", params=list(Mode))
def mode(request: pytest.FixtureRequest) -> Mode:
    """What sets pods up."""
    return Mode(request.param)


@pytest.fixture(scope="session")
def counted(request: pytest.FixtureRequest, mode: Mode, note: list[str]) -> Iterator[list[int]]:
    """How many pods each namespace of tests had; noted at the end, with the time that the mode took."""
    pods: list[int] = []
    began, before = time.monotonic(), request.session.testsfailed
    yield pods
    failed = request.session.testsfailed - before
    note.append(f"mode {mode}: {sum(pods)} pods in {time.monotonic() - began:.0f} s, {failed} tests failed")


@pytest.fixture(scope="session")
def weir(cluster: Cluster, mode: Mode, counted: list[int]) -> Iterator[WeirCluster]:
    """Weir, installed once in each mode."""
    with installed(cluster, *mode.values) as made:
        yield made


@pytest.fixture(scope="session")
def origin(weir: WeirCluster) -> Iterator[Origin]:
    """The outside world."""
    with weir.cluster.namespace(prefix="weir-e2e-origin") as namespace:
        made = Origin(weir, namespace)
        made.start()
        yield made


@pytest.fixture(scope="session")
def names(origin: Origin) -> Names:
    """What the origin is called; each name has one family alone."""
    found = {}
    for family in FAMILIES:
        addresses = {role: origin.add(f"{role}-{family}", family) for role in ROLES}
        if all(addresses.values()):
            found[family] = {
                role: {"host": origin.name(f"{role}-{family}"), "address": str(address)}
                for role, address in addresses.items()
            }
    return found


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest, names: Names) -> str:
    """The family of the origin's address."""
    if request.param not in names:
        pytest.skip(f"the cluster has no {FAMILIES[request.param]} Services")
    return str(request.param)


@pytest.fixture(scope="session")
def web_hosts(names: Names) -> list[str]:
    """The origin's name in each family."""
    return [roles["web"]["host"] for roles in names.values()]


@pytest.fixture(scope="session")
def hands(weir: WeirCluster, origin: Origin) -> Hands:
    """What is done on nodes."""
    made = Hands(weir, origin.namespace)
    made.start()
    return made


@pytest.fixture(scope="module")
def here(weir: WeirCluster, origin: Origin, mode: Mode, counted: list[int]) -> Iterator[Place]:
    """A namespace for the applications of one module."""
    with place(weir, origin, mode, counted) as made:
        yield made
