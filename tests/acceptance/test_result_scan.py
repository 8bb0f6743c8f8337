"""testssl.sh, an outside judge, scans the intercepting side of Weir from inside a pod.

Weir passes a client through that offers only what it would not speak itself, so a scan sees Weir and the origin. The
lab's origin offers nothing weak: whatever weak thing is found is Weir's.
"""

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from lab.lab import Lab
from lab.policy import Policy

pytestmark = pytest.mark.netns

HOST = "scan.tls.weir.test"
TESTSSL = shutil.which("testssl") or shutil.which("testssl.sh")
"""Debian's name, and upstream's."""

CHECKS = ("-p", "-s", "-f", "-S", "-U")
"""Protocols, ciphers by strength, forward secrecy, what the server hello says by default, vulnerabilities."""

TUNING = ("--quiet", "--color", "0", "--warnings", "batch", "--nodns", "min", "--ip", "one")
SEVERE = {"MEDIUM", "HIGH", "CRITICAL", "FATAL", "WARN"}
PRIVATE_CA = {
    "cert_expirationStatus": "a leaf lives a day, because its key does not outlive the pod",
    "cert_notAfter": "the same",
    "cert_revocation": "nobody asks a CA of one pod for revocation; its leaves end with it",
    "cert_chain_of_trust": "the CA is trusted by this pod alone",
    "sessionresumption_ticket": "OpenSSL's client may end before a TLS 1.3 ticket reaches it, and has none to try then",
}
"""Findings about a private CA and its short-lived leaves, which are not about the strength of the connection."""


@dataclass(frozen=True)
class Scan:
    """What testssl.sh found, and what Weir recorded of it."""

    findings: dict[str, dict[str, str]]
    records: list[dict[str, Any]]

    def said(self, finding: str) -> str:
        return self.findings[finding]["finding"]


@pytest.fixture(scope="module")
def scan(weir_lab: Lab) -> Scan:
    if TESTSSL is None:
        pytest.skip("testssl.sh is not installed (the Debian package testssl.sh)")
    out = weir_lab.directory / "testssl.json"
    argv = [TESTSSL, *TUNING, *CHECKS, "--jsonfile", str(out), HOST]
    # A scanner ends most handshakes in the middle; it is not to be taken for a client that distrusts the CA.
    policy = Policy(root=weir_lab.pki.ca_file, trust={"failOpen": {"enabled": False}})
    done = weir_lab.run_weir(argv, policy)
    findings = {found["id"]: found for found in json.loads(out.read_text())}
    # Its status counts what it could not test; that it came to its end, it says last.
    assert "scanTime" in findings, done.stdout + done.stderr
    return Scan(findings, [r for r in done.records if r["protocol"] == "tls"])


def test_it_is_weir_that_was_scanned(scan: Scan, note: list[str]) -> None:
    assert "Weir CA" in scan.said("cert_caIssuers")
    decisions = Counter((record["decision"], record["reason"]) for record in scan.records)
    versions = Counter(r["tls"]["client_version"] for r in scan.records if r["decision"] == "intercept")
    assert versions["1.2"] > 0
    assert versions["1.3"] > 0
    assert {decision for decision in decisions if decision[0] != "intercept"} <= {
        ("passthrough", "client_tls_too_old"),
        ("passthrough", "client_hello_unreadable"),
    }
    note.append(f"testssl.sh took {scan.said('scanTime')} s: {scan.said('TLS1_3')}, {dict(decisions)}")


def test_nothing_below_tls_1_2(scan: Scan) -> None:
    for version in ("SSLv2", "SSLv3", "TLS1", "TLS1_1"):
        assert scan.said(version) == "not offered", version
    assert scan.said("TLS1_2") == "offered"
    assert scan.said("TLS1_3").startswith("offered")


def test_no_cbc_no_rc4_and_no_rsa_key_exchange(scan: Scan) -> None:
    # testssl.sh 3.0 has one class of strong ciphers; 3.2 tells those without forward secrecy apart.
    strong = {"cipherlist_STRONG", "cipherlist_STRONG_FS"}
    classes = {name for name in scan.findings if name.startswith("cipherlist_")}
    assert len(classes - strong) >= 6
    for kind in classes - strong:
        assert scan.said(kind) == "not offered", kind
    for cipher in scan.said("PFS_ciphers" if "PFS_ciphers" in scan.findings else "FS_ciphers").split():
        assert cipher.startswith(("TLS_", "ECDHE-")), cipher
        assert "GCM" in cipher or "CHACHA20" in cipher, cipher
    assert scan.findings["RC4"]["severity"] == "OK"
    assert scan.findings["LUCKY13"]["severity"] == "OK"
    assert scan.said("ROBOT") == "not vulnerable, no RSA key transport cipher"


def test_no_finding_but_those_about_a_private_ca(scan: Scan) -> None:
    severe = {name: found for name, found in scan.findings.items() if found["severity"] in SEVERE}
    assert {name: found for name, found in severe.items() if name not in PRIVATE_CA} == {}
