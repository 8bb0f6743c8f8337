"""The Java trust store: its form, and Java's own word for it where there is a Java."""

import hashlib
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from weir_sidecar.certs import bundle, truststore


def test_the_form_is_the_one_of_jks() -> None:
    data = truststore.serialize([b"one", b"three"], created=1.5)
    assert struct.unpack(">III", data[:12]) == (0xFEEDFEED, 2, 2)
    first = b"\0\0\0\2" + b"\0\x09root-0001" + struct.pack(">q", 1500) + b"\0\5X.509" + b"\0\0\0\3one"
    assert data[12:].startswith(first)
    keyed = "changeit".encode("utf-16-be") + b"Mighty Aphrodite" + data[:-20]
    assert data[-20:] == hashlib.sha1(keyed).digest()


@pytest.mark.parametrize("password", [["-storepass", "changeit"], []], ids=["changeit", "no password"])
def test_java_reads_it_with_and_without_the_customary_password(tmp_path: Path, password: list[str]) -> None:
    keytool = shutil.which("keytool")
    bundles = bundle.system_bundles()
    if not keytool or not bundles:
        pytest.skip("keytool (a Java) or a system bundle is not installed")
    certificates = bundle.certificates(bundle.system_roots(bundles))
    store = tmp_path / "store"
    store.write_bytes(truststore.serialize(certificates, created=0.0))
    argv = [keytool, "-J-XX:TieredStopAtLevel=1", "-list", "-keystore", str(store), *password]
    done = subprocess.run(argv, input="\n", capture_output=True, text=True, check=True)
    assert f"contains {len(certificates)} entries" in done.stdout
