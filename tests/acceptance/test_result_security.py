"""What interception does to the security of a connection: nothing weaker than what two good ends would agree on.

The ClientHello that the upstream sees is judged by what it offers; version and ALPN by what both ends are told; and the
CA's key by where it can be found.
"""

import base64
import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from lab.lab import WEB, Lab
from lab.policy import Policy
from lab.probing import Probe, Probed, run_probes
from lab.running import RunningWeir, wait_for
from weir_sidecar.wire.clienthello import ClientHello, parse

pytestmark = pytest.mark.netns

V10, V11, V12, V13 = 0x0301, 0x0302, 0x0303, 0x0304
NAMES = {V12: "TLSv1.2", V13: "TLSv1.3"}
ORIGINS = {V12: "tls12", V13: "tls13"}
ALPNS = (["h2", "http/1.1"], ["http/1.1"], ["h2"])
X25519MLKEM768 = 0x11EC
# TLS 1.3's own (RFC 8446, B.4), and ECDHE with an AEAD (RFC 5289, RFC 7905); anything else is CBC, RC4, RSA or worse.
GOOD_CIPHERS = {0x1301, 0x1302, 0x1303, 0xC02B, 0xC02C, 0xC02F, 0xC030, 0xCCA8, 0xCCA9}
PQ_HOST = "pq.tls.weir.test"
SECP256R1 = 0x0017
WEAK = {
    "tls-1.0": {"least": V10, "most": V10, "ciphers": "ALL:@SECLEVEL=0"},
    "tls-1.1": {"least": V11, "most": V11, "ciphers": "ALL:@SECLEVEL=0"},
    "cbc": {"least": V12, "most": V12, "ciphers": "AES128-SHA:AES256-SHA256:@SECLEVEL=0"},
}
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
    defaults = {"host": "weak.tls.weir.test", "ca": str(lab.pki.ca_file)}
    probes += [Probe(name, "handshake", {**defaults, **args}) for name, args in WEAK.items()]
    return [*probes, Probe("post-quantum", "key_group", {**defaults, "host": PQ_HOST})]


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


@pytest.mark.parametrize("weakness", WEAK)
def test_a_client_that_offers_only_weak_things_is_refused(direct: Probed, proxied: Probed, weakness: str) -> None:
    assert direct.outcome(weakness).startswith("tls: ")
    assert str(proxied.outcome(weakness)).startswith("tls: ")


@pytest.fixture(scope="module")
def upstream_hello(weir_lab: Lab, proxied: Probed) -> ClientHello:
    """What Weir itself offers an upstream, for a client that can do all that is current."""
    assert [record["decision"] for record in proxied.records_of(host=PQ_HOST, protocol="tls")] == ["intercept"]
    # Others may have sent the origin what is no ClientHello at all.
    hellos = [parse(hello) for hello in weir_lab.hellos(WEB["tls"]) if PQ_HOST.encode() in hello]
    ours = [hello for hello in hellos if isinstance(hello, ClientHello) and hello.sni == PQ_HOST]
    return ours[-1]


def test_the_upstream_is_offered_nothing_weak(upstream_hello: ClientHello) -> None:
    assert set(upstream_hello.versions) <= {0x0303, 0x0304}
    assert set(upstream_hello.ciphers) - SIGNALLING <= GOOD_CIPHERS
    assert not any(group < SECP256R1 for group in upstream_hello.groups), "curves older than P-256"


def test_key_agreement_is_post_quantum_where_both_ends_can(proxied: Probed, upstream_hello: ClientHello) -> None:
    assert proxied.outcome("post-quantum") == "X25519MLKEM768"
    assert X25519MLKEM768 in upstream_hello.groups


def test_the_ca_key_is_on_tmpfs_only_and_nowhere_else(weir_lab: Lab) -> None:
    stamp = weir_lab.directory / "key-stamp"
    stamp.touch()
    # A flow is intercepted, so that a leaf is made; then the command waits to be let go.
    script = "curl -sS -o /dev/null https://key.tls.weir.test/hello; find /run/weir -name ca.key; echo done; cat"
    with RunningWeir(weir_lab, "wtlkey", ["sh", "-c", script], Policy(root=weir_lab.pki.ca_file)) as pod:
        assert pod.line() == "done", "the command can find the key"
        file = Path(f"/proc/{pod.process.pid}/root/run/weir/wtlkey/ca.key")
        pem = file.read_bytes()
        kind = subprocess.run(["stat", "-f", "-c", "%T", str(file)], capture_output=True, text=True, check=True)
        assert kind.stdout.strip() == "tmpfs"
        limits = Path(f"/proc/{pod.proxy()}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits), "a crash could write the key to a core dump"
        # A core dump that goes to a program heeds no limit; what is not dumpable belongs to root here (proc(5)).
        assert Path(f"/proc/{pod.proxy()}/mem").stat().st_uid == 0, "the proxy is dumpable"
    assert not Path("/run/weir/wtlkey").exists()
    written = _files_since(stamp, weir_lab.directory)
    assert {pod.record_file, pod.directory / "weir.log"} <= set(written)
    for place in written:
        content = place.read_bytes()
        assert not any(form in content for form in _forms(pem)), place


@pytest.fixture(scope="module")
def prying(weir_lab: Lab) -> dict[str, Any]:
    """What the proxy's memory gave to the proxy's own user and to the command's, who have no capability."""
    script = 'read pid; exec "$@" "$pid" 15801 65534'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "lab.prying"]
    with RunningWeir(weir_lab, "wtlpry", command, Policy()) as pod:
        wait_for("the proxy serves", lambda: (pod.state / "proxy.pid").exists() and pod.serving())
        pod.say(str(pod.proxy()))
        found: dict[str, Any] = json.loads(pod.line())
    return found


@pytest.mark.parametrize("uid", ["15801", "65534"], ids=["the proxy's user", "the command's user"])
def test_nobody_in_the_pod_reads_the_proxys_memory(prying: dict[str, Any], uid: str, note: list[str]) -> None:
    for attempt, outcome in prying[uid].items():
        assert outcome["own"] == "done", f"{attempt}: the attempt itself does not work"
        assert outcome["proxy"] in {"EPERM", "EACCES"}, attempt
    note.append(f"as uid {uid}, refused: {', '.join(prying[uid])}")


def _forms(pem: bytes) -> list[bytes]:
    """The private number as it could have been written: raw, hex, and inside the usual encodings."""
    key = load_pem_private_key(pem, None)
    raw = key.private_numbers().private_value.to_bytes(32)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    middle = pem.strip().splitlines()[1]
    # The first 48 characters are the same for all keys of this curve.
    return [raw, raw.hex().encode(), base64.b64encode(raw), base64.b64encode(der)[48:88], middle]


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
