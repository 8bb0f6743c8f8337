"""Hardened containers: what they lose, and what they may not ask for."""

import pytest
from msgspec.structs import replace

from golden.pod_cases import ISTIO, PLAIN, PLAN, SETTINGS
from weir_operator.injection.harden import CAPABILITIES
from weir_operator.injection.inject import Injected, Refused, inject

HARD = replace(PLAN, injection=replace(PLAN.injection, harden=True))


def pod(**container):
    spec = {
        "containers": [{"name": "app", "image": "a", **container}],
        "initContainers": [{"name": "first", "image": "a"}],
    }
    return {**PLAIN, "spec": {**PLAIN["spec"], **spec}}


def containers(given):
    result = inject(given, "shop", HARD, SETTINGS)
    assert isinstance(result, Injected), result
    return {one["name"]: one for field in ("initContainers", "containers") for one in result.pod["spec"][field]}


def dropped(container):
    return container.get("securityContext", {}).get("capabilities", {}).get("drop", [])


def test_the_pods_own_containers_lose_what_leads_round_the_proxy_and_ours_do_not():
    made = containers(pod())
    assert dropped(made["app"]) == dropped(made["first"]) == list(CAPABILITIES)
    assert {"SETUID", "NET_RAW"} < set(CAPABILITIES)
    assert dropped(made["weir-sidecar"]) == ["ALL"]


def test_what_a_container_says_otherwise_stays():
    context = {"runAsUser": 7, "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["MKNOD", "SETUID"]}}
    made = containers(pod(securityContext=context))["app"]["securityContext"]
    assert made["runAsUser"] == 7
    assert made["capabilities"]["add"] == ["NET_BIND_SERVICE"]
    assert made["capabilities"]["drop"][:2] == ["MKNOD", "SETUID"]
    assert sorted(made["capabilities"]["drop"]) == sorted({"MKNOD", *CAPABILITIES})


def test_who_drops_all_has_nothing_to_lose():
    assert dropped(containers(pod(securityContext={"capabilities": {"drop": ["ALL"]}}))["app"]) == ["ALL"]


def test_it_may_be_done_twice():
    once = inject(pod(), "shop", HARD, SETTINGS)
    assert isinstance(once, Injected)
    assert inject(once.pod, "shop", HARD, SETTINGS) == once


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"privileged": True}, "securityContext.privileged: found true"),
        ({"capabilities": {"add": ["NET_RAW"]}}, "found NET_RAW, which hardenContainers does not allow"),
        ({"capabilities": {"add": ["CAP_SETUID"]}}, "found CAP_SETUID"),
        ({"capabilities": {"add": ["ALL"]}}, "found ALL"),
    ],
)
def test_who_asks_for_it_is_refused(context, said):
    result = inject(pod(securityContext=context), "shop", HARD, SETTINGS)
    assert isinstance(result, Refused)
    assert f"container 'app': securityContext{'' if said.startswith('sec') else '.capabilities.add'}" in result.message
    assert said in result.message


def test_the_containers_of_a_mesh_keep_what_they_need():
    result = inject(ISTIO, "shop", HARD, SETTINGS)
    assert isinstance(result, Injected)
    mesh = [one for one in result.pod["spec"]["containers"] if one["name"] == "istio-proxy"]
    assert [dropped(one) for one in mesh] == [
        dropped(one) for one in ISTIO["spec"]["containers"] if one["name"] == "istio-proxy"
    ]
