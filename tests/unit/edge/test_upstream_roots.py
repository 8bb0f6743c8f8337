"""Whom to trust of upstreams: what changes it, what does not, and files that are missing, wrong or replaced."""

import msgspec
import pytest
from OpenSSL import crypto

from lab.pki import Authority
from weir_sidecar.certs.bundle import BundleError
from weir_sidecar.contract.config import Upstream
from weir_sidecar.edge.upstream_roots import UpstreamRoots

A, B, SYSTEM = (Authority.root(name).issued.pem for name in ("a", "b", "system"))


@pytest.fixture
def said():
    return []


@pytest.fixture
def roots(said):
    return UpstreamRoots(SYSTEM, said.append)


def test_it_is_made_anew_only_when_it_changes(roots, tmp_path):
    path = tmp_path / "roots.pem"
    path.write_bytes(A)
    config = Upstream(roots_files=(str(path),))
    assert roots.build(config) is not None
    assert roots.build(config) is None
    assert roots.build(msgspec.structs.replace(config, min_tls_version="1.3")) is not None
    assert roots.build(msgspec.structs.replace(config, system_roots=False)) is not None
    assert roots.build(msgspec.structs.replace(config, roots_pem=(B.decode(),))) is not None
    assert roots.build(config) is not None


def test_a_file_that_is_replaced_through_its_link_is_noticed(roots, tmp_path):
    """As the kubelet does it: `..data` comes to name another directory, in one step."""
    for name, pem in (("one", A), ("two", B)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ca.crt").write_bytes(pem)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "ca.crt").symlink_to("..data/ca.crt")
    config = Upstream(roots_files=(str(tmp_path / "ca.crt"),))
    roots.build(config)
    assert not roots.changed()
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert roots.changed()
    assert roots.build(config) is not None
    assert not roots.changed()


def test_a_missing_file_holds_nothing_is_told_once_and_may_come_later(roots, said, tmp_path):
    path = tmp_path / "later.pem"
    config = Upstream(roots_files=(str(path),))
    assert roots.build(config) is not None
    assert roots.build(config) is None
    assert said == [f"the roots in {path} count for nothing: there is no such file"]
    path.write_bytes(A)
    assert roots.changed()
    assert roots.build(config) is not None
    path.unlink()
    assert roots.changed()
    assert roots.build(config) is not None
    assert len(said) == 2


@pytest.mark.parametrize(
    "content", [b"", b"no certificate", A[:-40], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_certificates_holds_nothing_and_harms_nothing(roots, said, tmp_path, content):
    path = tmp_path / "bad.pem"
    path.write_bytes(content)
    assert roots.build(Upstream(roots_files=(str(path),))) is not None
    assert len(said) == 1
    assert str(path) in said[0]


def test_roots_in_the_config_that_are_none_are_refused_and_the_last_stay(roots):
    assert roots.build(Upstream()) is not None
    for pem in ("nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises((BundleError, crypto.Error)):
            roots.build(Upstream(roots_pem=(pem,)))
    assert roots.build(Upstream()) is None
