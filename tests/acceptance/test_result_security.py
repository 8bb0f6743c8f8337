"""What interception does to the security of a connection: nothing weaker than what two good ends would agree on.

The ClientHello that the upstream sees is judged by what it offers; version and ALPN by what both ends are told; and the
CA's key by where it can be found.
"""

import base64
import json
import ssl
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from lab.lab import WEB, Lab
from lab.policy import Policy
from lab.probing import Probe, Probed, run_probes
from weir_sidecar.wire.clienthello import ClientHello, parse

pytestmark = pytest.mark.netns

V12, V13 = int(ssl.TLSVersion.TLSv1_2), int(ssl.TLSVersion.TLSv1_3)
NAMES = {V12: "TLSv1.2", V13: "TLSv1.3"}
ORIGINS = {V12: "tls12", V13: "tls13"}
ALPNS = (["h2", "http/1.1"], ["http/1.1"], ["h2"])
X25519MLKEM768 = 0x11EC
# TLS 1.3's own (RFC 8446, B.4), and ECDHE with an AEAD (RFC 5289, RFC 7905); anything else is CBC, RC4, RSA or worse.
GOOD_CIPHERS = {0x1301, 0x1302, 0x1303, 0xC02B, 0xC02C, 0xC02F, 0xC030, 0xCCA8, 0xCCA9}
SIGNALLING = {0x00FF, 0x5600}
"""Not ciphers: renegotiation_info (RFC 5746) and fallback (RFC 7507)."""


def _id(client: int, origin: int, alpn: list[str]) -> str:
    return f"{client}-{origin}-{'+'.join(alpn)}"


CELLS = [(client, origin, alpn) for client, origin in product((V12, V13), (V12, V13)) for alpn in ALPNS]


def _probes(lab: Lab) -> list[Probe]:
    probes = []
    for client, origin, alpn in CELLS:
        host = f"c{client}.{ORIGINS[origin]}.weir.test"
        # A client of 1.3 speaks 1.2 as well, as all do; one of 1.2 speaks nothing newer.
        args = {"host": host, "ca": str(lab.pki.ca_file), "least": V12, "most": client, "alpn": alpn}
        probes.append(Probe(_id(client, origin, alpn), "handshake", args))
    return probes


@pytest.fixture(scope="module")
def direct(lab: Lab) -> Probed:
    return run_probes(lab, _probes(lab), None)


@pytest.fixture(scope="module")
def proxied(weir_lab: Lab) -> Probed:
    return run_probes(weir_lab, _probes(weir_lab), Policy(root=weir_lab.pki.ca_file))


@pytest.mark.parametrize(("client", "origin", "alpn"), CELLS, ids=str)
def test_version_and_alpn_are_what_the_ends_agree_on(
    direct: Probed, proxied: Probed, client: int, origin: int, alpn: list[str]
) -> None:
    cell = _id(client, origin, alpn)
    agreed = client == V13 or origin == V12
    if agreed:
        assert direct.outcome(cell) == [NAMES[origin], alpn[0]]
        assert proxied.outcome(cell) == direct.outcome(cell)
    else:
        assert direct.outcome(cell).startswith("tls: ")
        assert str(proxied.outcome(cell)).startswith("tls: ")


def _upstream_hellos(lab: Lab) -> list[ClientHello]:
    """What Weir itself offers: the hellos of one interception by a client that offers as little as it can."""
    before = len(lab.hellos(WEB["tls"]))
    args = {"host": "hello.tls.weir.test", "ca": str(lab.pki.ca_file), "least": V12, "most": V13, "alpn": ["http/1.1"]}
    probed = run_probes(lab, [Probe("hello", "handshake", args)], Policy(root=lab.pki.ca_file))
    assert probed.outcome("hello") == ["TLSv1.3", "http/1.1"]
    assert [record["decision"] for record in probed.records_of(protocol="tls")] == ["intercept"]
    hellos = [parse(hello) for hello in lab.hellos(WEB["tls"])[before:]]
    return [hello for hello in hellos if isinstance(hello, ClientHello)]


def test_the_upstream_is_offered_nothing_weak(weir_lab: Lab) -> None:
    hellos = _upstream_hellos(weir_lab)
    assert len(hellos) == 1
    for hello in hellos:
        assert set(hello.versions) <= {0x0303, 0x0304}
        assert set(hello.ciphers) - SIGNALLING <= GOOD_CIPHERS
        assert hello.sni == "hello.tls.weir.test"
        assert not any(group in range(1, 0x0017) for group in hello.groups), "curves older than P-256"


def test_the_client_is_offered_post_quantum_key_agreement(weir_lab: Lab) -> None:
    """Where both ends can: the intercepting side must; the upstream's side depends on the OpenSSL of Python's ssl."""
    if not _openssl_has("X25519MLKEM768"):
        pytest.skip("openssl without X25519MLKEM768 (3.5 or newer has it): post-quantum key agreement")
    command = ["openssl", "s_client", "-groups", "X25519MLKEM768", "-connect", "pq.tls13.weir.test:443"]
    script = [*command, "-servername", "pq.tls13.weir.test"]
    done = weir_lab.run_weir(script, Policy(root=weir_lab.pki.ca_file))
    assert "X25519MLKEM768" in done.stdout


def _openssl_has(group: str) -> bool:
    done = subprocess.run(["openssl", "list", "-kem-algorithms"], capture_output=True, text=True, check=False)
    return group in done.stdout


# Prints the CA's key as the pod's owner can find it, and where it lies, while the pod runs.
_SHOW_KEYS = """
import json, pathlib, subprocess, sys
found = [str(path) for path in pathlib.Path('/run/weir').rglob('ca.key')]
kinds = [subprocess.run(['stat', '-f', '-c', '%T', path], capture_output=True, text=True).stdout.strip() for path in found]
print(json.dumps([[path, kind, pathlib.Path(path).read_text()] for path, kind in zip(found, kinds)]))
"""


def test_the_ca_key_is_on_tmpfs_only_and_in_no_record(weir_lab: Lab) -> None:
    state = weir_lab.directory / "key-state"
    stamp = weir_lab.directory / "key-stamp"
    stamp.touch()
    done = weir_lab.run_weir([sys.executable, "-c", _SHOW_KEYS], Policy(root=weir_lab.pki.ca_file), state=state)
    found = json.loads(done.stdout)
    assert found, "the key of the running pod was not found where the run directory is"
    assert {kind for _, kind, _ in found} == {"tmpfs"}
    needles = [needle for _, _, pem in found for needle in _forms(pem)]
    written = _files_since(stamp, weir_lab.directory)
    assert written
    for file in written:
        content = file.read_bytes()
        assert not any(needle in content for needle in needles), file
    assert not any(needle in (done.stderr.encode()) for needle in needles)
    assert not any(Path(path).exists() for path, _, _ in found), "the key outlived its pod"


def _forms(pem: str) -> list[bytes]:
    """The private number as it could have been written: raw, hex, and inside the usual encodings."""
    key = load_pem_private_key(pem.encode(), None)
    raw = key.private_numbers().private_value.to_bytes(32)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    middle = pem.strip().splitlines()[1].encode()
    return [raw, raw.hex().encode(), base64.b64encode(raw), base64.b64encode(der)[:40], middle]


def _files_since(stamp: Path, lab_directory: Path) -> list[Path]:
    """Files on the real disk that are newer than the stamp: under the lab, the usual places for state, logs and dumps."""
    places = [str(lab_directory), "/tmp", "/var", str(Path.cwd())]
    command = [
        "find",
        *places,
        "-xdev",
        "-type",
        "f",
        "-newer",
        str(stamp),
        "-size",
        "-20M",
        "-not",
        "-path",
        "*/.git/*",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [Path(line) for line in done.stdout.splitlines() if Path(line).is_file()]
