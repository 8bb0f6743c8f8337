"""Weir goes, and nothing of it is in anybody's way."""

import pytest

from lab.weir_cluster import CHART, SYSTEM, within
from lab.workloads import caller, policy

pytestmark = [pytest.mark.cluster, pytest.mark.pods]


@pytest.mark.timeout(300)
def test_uninstalling_leaves_no_webhook_no_finalizer_and_no_broken_pod(weir, origin, shop):
    weir.apply(policy("all", shop))
    pod = caller("stays", origin.host, pause=0.1)
    weir.apply({**pod, "metadata": {**pod["metadata"], "namespace": shop}})
    weir.wait_phase(shop, "stays", "Running")
    weir.wait_calls(shop, "stays", lambda call: call["ok"])
    weir.helm("uninstall", "weir", "-n", SYSTEM, "--wait", "--timeout", "120s")
    try:
        for kind in (
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
            "clusterrolebindings",
            "clusterroles",
        ):
            assert "weir" not in weir.kubectl("get", kind, "-o", "name")
        within(90, "nothing in weir-system", lambda: left_in_system(weir) == [])
        before = len(weir.calls(shop, "stays"))
        within(20, "ten more calls", lambda: len(weir.calls(shop, "stays")) >= before + 10)
        assert [call for call in weir.calls(shop, "stays") if not call["ok"]] == []
        later = caller("later", origin.host, roots="/origin/ca.crt", count=1)
        weir.apply({**later, "metadata": {**later["metadata"], "namespace": shop}})
        weir.wait_phase(shop, "later", "Succeeded")
        assert (
            weir.kubectl("get", "interceptionpolicy", "all", "-n", shop, "-o", "jsonpath={.metadata.finalizers}") == ""
        )
        weir.kubectl("delete", "interceptionpolicy", "all", "-n", shop, "--timeout=10s")
        weir.kubectl("delete", "pod", "stays", "-n", shop, "--timeout=60s")
    finally:
        reinstall(weir)


def left_in_system(weir):
    kinds = "deployments,services,secrets,configmaps,poddisruptionbudgets,networkpolicies,roles,rolebindings"
    names = weir.kubectl("get", kinds, "-n", SYSTEM, "-o", "name").split()
    return [name for name in names if "weir" in name]


def reinstall(weir):
    """For the tests after this one."""
    weir.helm("install", "weir", str(CHART), "-n", SYSTEM, "--wait", "--timeout", "120s")
