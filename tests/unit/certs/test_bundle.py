"""The merged bundle."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.certs import bundle


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=5), st.binary(min_size=1, max_size=200), st.booleans())
def test_a_merged_bundle_holds_the_roots_and_then_the_ca(roots: list[bytes], authority: bytes, newline: bool) -> None:
    text = b"# a comment\n".join(map(pem, roots))
    merged = bundle.merge(text if newline else text.rstrip(b"\n"), pem(authority))
    assert bundle.certificates(merged) == (*roots, authority)
    assert merged.endswith(b"-----END CERTIFICATE-----\n")


def test_windows_line_ends_are_read() -> None:
    assert bundle.certificates(pem(b"abc").replace(b"\n", b"\r\n")) == (b"abc",)


def test_a_key_in_the_place_of_the_ca_is_refused() -> None:
    with pytest.raises(bundle.BundleError, match="no '-----BEGIN CERTIFICATE-----'"):
        bundle.merge(b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


def test_what_is_not_base64_is_named_by_its_place() -> None:
    with pytest.raises(bundle.BundleError, match="certificate 2"):
        bundle.certificates(pem(b"a") + b"-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n")


def test_bundles_that_are_links_to_one_file_are_one(tmp_path: Path) -> None:
    real, link = tmp_path / "real.pem", tmp_path / "link.pem"
    real.write_bytes(pem(b"root"))
    link.symlink_to(real)
    found = bundle.system_bundles([str(tmp_path / "missing"), str(link), str(real), str(tmp_path)])
    assert found == (str(real),)


def test_roots_come_from_the_first_bundle_that_has_any(tmp_path: Path) -> None:
    empty, full = tmp_path / "empty.pem", tmp_path / "full.pem"
    empty.write_bytes(b"\n")
    full.write_bytes(pem(b"root"))
    assert bundle.system_roots((str(empty), str(full))) == full.read_bytes()
    assert bundle.system_roots(()) == b""


def test_what_several_texts_hold_is_there_once() -> None:
    assert bundle.united(pem(b"a") + pem(b"b"), b"", b"no certificates", pem(b"b") + pem(b"c")) == (b"a", b"b", b"c")


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5))
def test_what_is_written_as_pem_is_read_again(ders: list[bytes]) -> None:
    assert bundle.certificates(bundle.to_pem(ders)) == tuple(ders)
