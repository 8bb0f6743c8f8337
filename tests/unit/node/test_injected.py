"""Pods that claim to be captured: those that the webhook makes are believed, others are not."""

import copy
from typing import Any

import pytest

from golden.pod_cases import CASES
from weir_operator.injection.inject import Injected, inject
from weir_sidecar.contract.config import Identity
from weir_sidecar.node.injected import problems, repository

IMAGE = "registry.example/weir-sidecar:2"
MADE = [name for name in CASES if name.startswith("cni")]


def made(name: str = "cni") -> dict[str, Any]:
    pod, plan, settings = CASES[name]
    injected = inject(pod, "shop", plan, settings)
    assert isinstance(injected, Injected)
    return copy.deepcopy(injected.pod["spec"])


def found(spec: dict[str, Any]) -> str:
    return "; ".join(problems(spec, Identity(), IMAGE))


@pytest.mark.parametrize("name", MADE)
def test_what_the_webhook_makes_is_believed_also_after_an_upgrade(name: str) -> None:
    assert found(made(name)) == ""


def test_what_other_webhooks_add_to_every_container_is_no_forgery() -> None:
    spec = made()
    spec["initContainers"][1]["env"].append({"name": "AWS_ROLE_ARN", "value": "x"})
    mount = {"name": "token", "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount"}
    spec["initContainers"][1]["volumeMounts"].append(mount)
    assert found(spec) == ""


@pytest.mark.parametrize(
    ("at", "change", "said"),
    [
        (1, {"image": "attacker/weir-sidecar:1"}, "image 'attacker/weir-sidecar:1'"),
        (1, {"command": ["sh"]}, "command ['sh']"),
        (0, {"command": ["sh"]}, "command ['sh']"),
        (1, {"env": [{"name": "PYTHONPATH", "value": "/evil"}]}, "'PYTHONPATH'"),
        (1, {"envFrom": [{"configMapRef": {"name": "x"}}]}, "'envFrom'"),
        (1, {"lifecycle": {"postStart": {"exec": {"command": ["sh"]}}}}, "'lifecycle'"),
        (1, {"volumeMounts": [{"name": "evil", "mountPath": "/opt/weir/code"}]}, "'/opt/weir/code'"),
        (1, {"volumeMounts": [{"name": "evil", "mountPath": "/run/../opt/weir/code"}]}, "'/run/../opt/weir/code'"),
        (1, {"securityContext": {"runAsUser": 0}}, "does not run as user 15801"),
        (1, {"name": "sidecar"}, "do not begin with"),
    ],
)
def test_a_forged_sidecar_is_none(at: int, change: dict[str, Any], said: str) -> None:
    spec = made()
    spec["initContainers"][at].update(change)
    assert said in found(spec)


@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
def test_nobody_else_is_the_proxys_user(kind: str) -> None:
    spec = made()
    spec.setdefault(kind, []).append({"name": "evil", "securityContext": {"runAsUser": 15801}})
    assert "'evil' runs as user 15801" in found(spec)


PRIVATE = "/run/weir/pod"


def test_nobody_else_has_the_volume_with_the_key() -> None:
    spec = made()
    spec["containers"][0].setdefault("volumeMounts", []).append({"name": "weir-pod", "mountPath": "/mnt"})
    assert "mounts 'weir-pod', which is Weir's own" in found(spec)


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize(
    "mounts",
    [
        [],
        [{"name": "other", "mountPath": PRIVATE}],
        [{"name": "weir-pod", "mountPath": PRIVATE, "subPath": "part"}],
        [{"name": "weir-pod", "mountPath": PRIVATE, "subPathExpr": "$(X)"}],
        [{"name": "weir-pod", "mountPath": PRIVATE}, {"name": "other", "mountPath": f"{PRIVATE}/run"}],
        [{"name": "weir-pod", "mountPath": PRIVATE}, {"name": "other", "mountPath": "/run//weir/./pod/run"}],
    ],
)
def test_the_key_has_its_own_place(at: int, mounts: list[dict[str, Any]]) -> None:
    spec = made()
    spec["volumes"].append({"name": "other", "emptyDir": {}})
    kept = [one for one in spec["initContainers"][at]["volumeMounts"] if one["mountPath"] != PRIVATE]
    spec["initContainers"][at]["volumeMounts"] = [*kept, *mounts]
    assert "something else than the one emptyDir" in found(spec)


def test_the_volume_with_the_key_ends_with_the_pod() -> None:
    spec = made()
    (volume,) = (one for one in spec["volumes"] if one["name"] == "weir-pod")
    del volume["emptyDir"]
    volume["persistentVolumeClaim"] = {"claimName": "shared"}
    assert "something else than the one emptyDir" in found(spec)


def test_nor_by_the_pods_own_setting() -> None:
    spec = made()
    spec["securityContext"] = {"runAsUser": 15801}
    assert "runs as user 15801" in found(spec)


def test_a_pod_without_containers_of_ours() -> None:
    assert "do not begin with" in found({"containers": [{"name": "app"}]})


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("weir/sidecar", "weir/sidecar"),
        ("weir/sidecar:1", "weir/sidecar"),
        ("host:5000/weir/sidecar", "host:5000/weir/sidecar"),
        ("host:5000/weir/sidecar:1@sha256:00", "host:5000/weir/sidecar"),
        ("weir/sidecar@sha256:00", "weir/sidecar"),
    ],
)
def test_versions_of_one_image_have_one_name(image: str, name: str) -> None:
    assert repository(image) == name
