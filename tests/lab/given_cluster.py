"""The cluster that KUBECONFIG names, with its current context, for tests that were told to use it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.kube import ASSETS, Cluster, binary

NO_NODE = "no node to run pods: give a cluster with KUBECONFIG and WEIR_TEST_CLUSTER=kubeconfig"


@contextmanager
def given_cluster() -> Iterator[Cluster]:
    """Fails the test if KUBECONFIG is missing; skips it without kubectl."""
    path = os.environ.get("KUBECONFIG")
    if not path:
        pytest.fail("WEIR_TEST_CLUSTER is kubeconfig, and KUBECONFIG is not set; set it to the file's path")
    if binary("kubectl") is None:
        pytest.skip(f"no kubectl in {ASSETS} (KUBEBUILDER_ASSETS) or on PATH")
    directory = Path(tempfile.mkdtemp(prefix="weir-cluster-"))
    try:
        yield Cluster(Path(path), directory)
    finally:
        shutil.rmtree(directory)


def need_helm() -> None:
    """Skips the test without helm, which installs Weir."""
    if shutil.which("helm") is None:
        pytest.skip("helm is not on PATH")
