"""Other meshes in a pod."""

import pytest

from golden.pod_cases import ISTIO, PLAIN, pod
from weir_operator.injection import meshes
from weir_sidecar.contract.config import IDRange

LINKERD = pod("""
metadata: {name: meshed}
spec:
  initContainers: [{name: linkerd-init, image: i}]
  containers: [{name: linkerd-proxy, image: i}, {name: app, image: a}]
""")


def with_metadata(**metadata):
    return {**PLAIN, "metadata": {"name": "web", **metadata}}


def test_a_pod_without_a_mesh():
    assert meshes.proxies(PLAIN) == ()
    assert list(meshes.warnings(PLAIN)) == []


def test_the_users_of_mesh_proxies_are_exempt():
    assert meshes.uids(ISTIO) == (IDRange(1337, 1337),)
    assert meshes.uids(LINKERD) == (IDRange(2102, 2102),)


def test_a_mesh_proxy_with_a_user_of_its_own():
    openshift = pod("""
metadata: {name: meshed}
spec: {containers: [{name: istio-proxy, image: i, securityContext: {runAsUser: 1000660001}}]}
""")
    assert meshes.uids(openshift) == (IDRange(1000660001, 1000660001),)


def test_a_warning_names_the_mesh_and_the_user():
    (warning,) = meshes.warnings(LINKERD)
    assert "Linkerd" in warning
    assert "2102" in warning


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"istio.io/dataplane-mode": "ambient"}},
        {"annotations": {"ambient.istio.io/redirection": "enabled"}},
    ],
)
def test_ambient_mode_is_warned_of(metadata):
    (warning,) = meshes.warnings(with_metadata(**metadata))
    assert "ambient" in warning
    assert "istio.io/dataplane-mode: none" in warning


def test_a_pod_taken_out_of_ambient_mode_is_not():
    assert list(meshes.warnings(with_metadata(labels={"istio.io/dataplane-mode": "none"}))) == []


def test_ciliums_visibility_is_warned_of():
    (warning,) = meshes.warnings(
        with_metadata(annotations={"policy.cilium.io/proxy-visibility": "<Egress/53/UDP/DNS>"})
    )
    assert "Cilium" in warning
