"""What may be done to a captured pod, and what not."""

import copy

import pytest

from weir_operator.serving.guard import objections
from weir_sidecar.contract.config import Identity


def pod(*, captured=True):
    ours = [{"name": "weir-init", "image": "weir:1"}, {"name": "weir-sidecar", "image": "weir:1"}]
    return {
        "metadata": {
            "name": "app",
            "labels": {"app": "web", "weir.dev/captured": "true"},
            "annotations": {"weir.dev/config": "{}", "weir.dev/policies": "a"},
        },
        "spec": {"initContainers": ours if captured else [], "containers": [{"name": "app", "image": "app:1"}]},
    }


def changed(change, **options):
    old = pod(**options)
    new = copy.deepcopy(old)
    change(new)
    return objections(old, new, Identity())


def debug(**container):
    def change(new):
        new["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "busybox", **container}]

    return change


def set_image(new):
    new["spec"]["initContainers"][1]["image"] = "evil:1"


def drop_sidecar(new):
    del new["spec"]["initContainers"][1]


def set_config(new):
    new["metadata"]["annotations"]["weir.dev/config"] = '{"rules":[]}'


def drop_annotations(new):
    del new["metadata"]["annotations"]


def drop_label(new):
    del new["metadata"]["labels"]["weir.dev/captured"]


REFUSED = {
    "weir-sidecar": set_image,
    "container weir-sidecar": drop_sidecar,
    "weir.dev/config": set_config,
    "weir.dev/policies": drop_annotations,
    "weir.dev/captured": drop_label,
    "runAsUser is 15801": debug(securityContext={"runAsUser": 15801}),
    "runAsGroup is 15801": debug(securityContext={"runAsGroup": 15801}),
    "NET_ADMIN": debug(securityContext={"capabilities": {"add": ["NET_ADMIN"]}}),
    "CAP_net_raw": debug(securityContext={"capabilities": {"add": ["CAP_net_raw"]}}),
    "has ALL": debug(securityContext={"capabilities": {"add": ["ALL"]}}),
    "privileged": debug(securityContext={"privileged": True}),
    "mounts the volume weir-token": debug(volumeMounts=[{"name": "weir-token", "mountPath": "/t"}]),
    "mounts the volume weir-credentials": debug(volumeMounts=[{"name": "weir-credentials", "mountPath": "/t"}]),
    "mounts the volume weir-roots-0": debug(volumeMounts=[{"name": "weir-roots-0", "mountPath": "/t"}]),
    "mounts the volume weir-trust": debug(volumeMounts=[{"name": "weir-trust", "mountPath": "/t"}]),
    "targets weir-sidecar": debug(targetContainerName="weir-sidecar"),
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_steers_the_proxy_is_refused_and_named(word):
    assert word in "; ".join(changed(REFUSED[word]))


def set_own_image(new):
    new["spec"]["containers"][0]["image"] = "app:2"


def set_own_label(new):
    new["metadata"]["labels"]["app"] = "other"


ALLOWED = [
    set_own_image,
    set_own_label,
    debug(),
    debug(securityContext={"runAsUser": 1000, "capabilities": {"add": ["SYS_PTRACE"]}}),
    debug(targetContainerName="app"),
    debug(volumeMounts=[{"name": "weir-trust", "mountPath": "/t", "readOnly": True}]),
    lambda new: None,
]


@pytest.mark.parametrize("change", ALLOWED)
def test_the_rest_is_not(change):
    assert changed(change) == []


@pytest.mark.parametrize("change", [set_config, drop_label, debug(securityContext={"privileged": True})])
def test_a_pod_that_is_not_captured_is_none_of_our_business(change):
    assert changed(change, captured=False) == []


def test_an_ephemeral_container_that_was_there_before_is_not_judged_again():
    old = pod()
    debug(securityContext={"privileged": True})(old)
    assert objections(old, copy.deepcopy(old), Identity()) == []


def test_all_that_is_wrong_is_told():
    def change(new):
        set_image(new)
        set_config(new)

    assert len(changed(change)) == 2
