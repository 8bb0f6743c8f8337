"""Weir verifies the upstream for the client: a bad certificate never turns into a good one.

Each kind of certificate has a server of its own. The client looks twice: as one that verifies, and as one that does not
and only says which certificate it was shown. All of it runs in one `weir run` for `Reject` and one for `Passthrough`.
"""

from typing import Any

import pytest
from cryptography import x509

from lab.bad_certificates import CONTROLS, KINDS
from lab.lab import Lab
from lab.policy import Policy
from lab.probing import Probe, Probed, run_probes

pytestmark = pytest.mark.netns

each_bad = pytest.mark.parametrize("kind", KINDS)
each_good = pytest.mark.parametrize("kind", CONTROLS)


def _probes(lab: Lab) -> list[Probe]:
    probes = []
    for kind, case in lab.certificates.items():
        host = None if case.target == case.address else case.target
        args = {"address": case.address, "host": host, "target": case.target, "ca": str(lab.pki.ca_file)}
        probes.append(Probe(kind, "certificate", args))
    return probes


@pytest.fixture(scope="module")
def direct(lab: Lab) -> Probed:
    return run_probes(lab, _probes(lab), None)


@pytest.fixture(scope="module")
def rejecting(weir_lab: Lab) -> Probed:
    return run_probes(weir_lab, _probes(weir_lab), Policy(root=weir_lab.pki.ca_file))


@pytest.fixture(scope="module")
def passing(weir_lab: Lab) -> Probed:
    policy = Policy(root=weir_lab.pki.ca_file, on_invalid_certificate="Passthrough")
    return run_probes(weir_lab, _probes(weir_lab), policy)


def _own(lab: Lab, kind: str) -> str:
    return lab.certificates[kind].issued.der.hex()


def _records(lab: Lab, probed: Probed, kind: str) -> list[dict[str, Any]]:
    records = probed.records_of(address=lab.certificates[kind].address, port=443)
    assert len(records) == 2, "one record for each of the two looks"
    return records


@each_bad
def test_a_good_client_refuses_it_directly(lab: Lab, direct: Probed, kind: str) -> None:
    """Guards the tests below: these certificates are bad, and the servers show them."""
    outcome = direct.outcome(kind)
    assert outcome["verified"] == "tls: CERTIFICATE_VERIFY_FAILED"
    assert outcome["shown"] == _own(lab, kind)


@each_bad
def test_reject_fails_the_handshake(lab: Lab, rejecting: Probed, kind: str) -> None:
    outcome = rejecting.outcome(kind)
    assert str(outcome["verified"]).startswith("tls:"), "a TLS failure, not success and not a bare reset"
    assert outcome["shown"] is None, "not even a careless client gets a leaf"
    for record in _records(lab, rejecting, kind):
        assert record["decision"] == "deny"
        assert record["error"] == "upstream_certificate_invalid"
        assert record["tls"]["verify_error"]


@each_bad
def test_passthrough_shows_the_origins_own_certificate(lab: Lab, passing: Probed, kind: str) -> None:
    outcome = passing.outcome(kind)
    assert outcome["verified"] == "tls: CERTIFICATE_VERIFY_FAILED", "the client judges for itself"
    assert outcome["shown"] == _own(lab, kind)
    for record in _records(lab, passing, kind):
        assert (record["decision"], record["reason"]) == ("passthrough", "upstream_certificate_invalid")
        assert record["tls"]["verify_error"]


@each_good
@pytest.mark.parametrize("mode", ["rejecting", "passing"])
def test_a_good_certificate_is_mirrored(
    lab: Lab, direct: Probed, mode: str, kind: str, request: pytest.FixtureRequest
) -> None:
    probed: Probed = request.getfixturevalue(mode)
    assert direct.outcome(kind) == {"verified": True, "shown": _own(lab, kind)}
    outcome = probed.outcome(kind)
    assert outcome["verified"] is True
    assert outcome["shown"] != _own(lab, kind)
    leaf, own = (
        x509.load_der_x509_certificate(bytes.fromhex(outcome["shown"])),
        lab.certificates[kind].issued.certificate,
    )
    assert leaf.issuer != own.issuer
    assert _names(leaf) == _names(own)
    assert leaf.not_valid_after_utc <= own.not_valid_after_utc
    assert {record["decision"] for record in _records(lab, probed, kind)} == {"intercept"}


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
