"""`weir render`, and the reading of policy files that `run` and `explain` share with it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from weir_cli.main import main
from weir_sidecar.contract import config
from weir_sidecar.netfilter.features import Features
from weir_sidecar.netfilter.render import render

EXAMPLES = sorted((Path(__file__).parents[3] / "docs/examples").glob("*.yaml"))
TRUST = (
    "apiVersion: weir.dev/v1alpha1\nkind: TrustPolicy\nmetadata: {name: t}\nspec: {upstream: {roots: [{file: %s}]}}\n"
)
POLICY = "apiVersion: weir.dev/v1alpha1\nkind: InterceptionPolicy\nmetadata: {name: p}\nspec: %s\n"


def certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 7)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2040, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def run(capsys, *argv):
    """Exit status, standard output and error."""
    status = main(["render", *map(str, argv)])
    return status, *capsys.readouterr()


@pytest.fixture
def write(tmp_path):
    """Writes a file into a directory of its own; returns its path."""

    def write_(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write_


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_prints_the_ruleset_of_the_config_and_nothing_else(example, capsys):
    status, text, remarks = run(capsys, "--config", "-f", example)
    assert status == 0
    assert all("no effect on one machine" in line for line in remarks.splitlines())
    compiled = config.decode(text)
    assert run(capsys, "-f", example) == (0, render(compiled, Features()), remarks)


def test_without_files_it_is_the_default(capsys):
    status, text, errors = run(capsys, "--config")
    assert (status, errors) == (0, "")
    assert config.decode(text) == config.SidecarConfig()
    assert text.startswith('{\n  "version": ')


def test_files_are_joined_in_the_order_given(write, capsys):
    one = write("1.yaml", POLICY.replace("name: p", "name: one") % "{rules: [{name: a, action: Deny}]}")
    two = write("2.yaml", POLICY.replace("name: p", "name: two") % "{rules: [{name: b, action: Deny}]}")
    _, text, _ = run(capsys, "--config", "-f", two, "-f", one)
    assert [rule["name"] for rule in json.loads(text)["rules"]] == ["two/b", "one/a"]


def test_all_wrong_files_are_told_with_status_2_and_nothing_is_printed(write, tmp_path, capsys):
    one, two = write("1.yaml", POLICY % "{failureMode: x}"), write("2.yaml", POLICY % "{zzz: 1}")
    missing = tmp_path / "missing.yaml"
    status, text, errors = run(capsys, "-f", one, "-f", two, "-f", missing, "-f", tmp_path)
    assert (status, text) == (2, "")
    first, second, third, fourth = errors.splitlines()
    assert first.startswith(f"weir: {one}:4:21: spec.failureMode: found 'x'; allowed: Open, Closed")
    assert second.startswith(f"weir: {two}:4:8: spec.zzz: unknown field")
    assert third == f"weir: {missing}: cannot be read: No such file or directory"
    assert fourth == f"weir: {tmp_path}: cannot be read: Is a directory"


def test_notices_go_to_standard_error(write, capsys):
    status, text, errors = run(capsys, "--config", "-f", write("p.yaml", POLICY % "{podSelector: {}}"))
    assert status == 0
    assert config.decode(text) == config.SidecarConfig()
    assert "p.yaml:4:21: spec.podSelector: no effect on one machine" in errors


def test_roots_are_read_beside_the_policy_file_and_only_certificates_are_kept(write, capsys):
    root, key = certificate()
    write("sub/root.pem", f"a comment\n{root}{key}{root}")
    status, text, _ = run(capsys, "--config", "-f", write("sub/t.yaml", TRUST % "root.pem"))
    assert status == 0
    assert config.decode(text).trust.upstream.roots_pem == (root + root,)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "found 'root.pem', which cannot be read: No such file or directory"),
        ("", "found 'root.pem', which holds no certificates; allowed: a file of certificates in PEM form"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "which holds no certificates"),
        (certificate()[1], "which holds no certificates"),
        ("x" * (1 << 20) + "x", "which holds no certificates"),
    ],
)
def test_roots_that_are_none(content, says, write, capsys):
    if content is not None:
        write("root.pem", content)
    path = write("t.yaml", TRUST % "root.pem")
    status, text, errors = run(capsys, "-f", path)
    assert (status, text) == (2, "")
    assert errors.startswith(f"weir: {path}:4:34: spec.upstream.roots[0].file: found 'root.pem', which ")
    assert says in errors


def test_a_cluster_object_as_root_is_a_clear_error(write, capsys):
    text = TRUST.replace("file: %s", "configMap: {name: a, key: b}")
    status, _, errors = run(capsys, "-f", write("t.yaml", text))
    assert status == 2
    assert "spec.upstream.roots[0].configMap: only a cluster has it; allowed on one machine: file, pem" in errors
