import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from samples.provided_ca import make
from weir_sidecar.certs.bundle import certificates
from weir_sidecar.podsetup import trust_files

PUBLIC, COMPANY = make("Public Root"), make("Company Root")
OLD, NEW = make("Interception"), make("Interception")
ROOTS = (PUBLIC.pem, COMPANY.pem + PUBLIC.pem, b"")


def der(*cas: object) -> list[bytes]:
    return [ca.certificate.public_bytes(Encoding.DER) for ca in cas]


@pytest.fixture
def made() -> trust_files.TrustFiles:
    return trust_files.make(ROOTS, (OLD.certificate, NEW.certificate), "/run/weir/trust")


def test_the_bundle_has_the_roots_and_the_authorities_each_once(made: trust_files.TrustFiles) -> None:
    assert list(certificates(made.files["bundle.crt"])) == der(PUBLIC, COMPANY, OLD, NEW)
    assert made.certificates == 4
    assert list(certificates(made.files["ca.crt"])) == der(OLD, NEW)


def test_the_same_in_gives_the_same_out(made: trust_files.TrustFiles) -> None:
    assert trust_files.make(ROOTS, (OLD.certificate, NEW.certificate), "/run/weir/trust") == made


def test_chromium_and_firefox_are_told_of_each_authority(made: trust_files.TrustFiles) -> None:
    given = json.loads(made.files["browsers.json"])["CACertificates"]
    assert [base64.b64decode(text) for text in given] == der(OLD, NEW)
    # Firefox reads one certificate of a file.
    paths = json.loads(made.files["firefox.json"])["policies"]["Certificates"]["Install"]
    assert [Path(path).parent for path in paths] == [Path("/run/weir/trust/certs")] * 2
    assert [certificates(made.hashed[Path(path).name]) for path in paths] == [(one,) for one in der(OLD, NEW)]


def test_two_of_one_name_have_two_files(made: trust_files.TrustFiles) -> None:
    first, second = sorted(made.hashed)
    assert first.endswith(".0")
    assert second == first.removesuffix("0") + "1"
    assert made.links == {"bundle.crt": "../bundle.crt"}


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_openssl_finds_the_authorities_by_their_names(made: trust_files.TrustFiles, tmp_path: Path) -> None:
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(make("leaf", NEW).pem)
    check = ["openssl", "verify", "-no_check_time", "-no-CAfile", "-no-CAstore", "-CApath", str(tmp_path), str(leaf)]
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0
    for name, data in made.hashed.items():
        (tmp_path / name).write_bytes(data)
    subprocess.run(check, capture_output=True, check=True)


@pytest.mark.skipif(not shutil.which("keytool"), reason="needs a Java")
def test_java_reads_the_trust_store(made: trust_files.TrustFiles, tmp_path: Path) -> None:
    store = tmp_path / "truststore.jks"
    store.write_bytes(made.files["truststore.jks"])
    shown = subprocess.run(
        ["keytool", "-list", "-keystore", str(store), "-storepass", "changeit"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "4 entries" in shown.stdout
