import datetime as dt
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from weir_sidecar.certs.authority import Authority
from weir_sidecar.contract.config import ConfigError, Trust
from weir_sidecar.edge.authority_files import CERTIFICATE, KEY, load, load_or_create, store

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
MADE, GIVEN = Trust(), Trust(authority_dir="/run/weir/ca")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_is_made_once_and_found_again(directory: int, tmp_path: Path) -> None:
    made = load_or_create(directory, NOW, MADE)
    assert load_or_create(directory, NOW + dt.timedelta(days=1), MADE).fingerprint() == made.fingerprint()
    assert (tmp_path / CERTIFICATE).read_bytes() == made.certificate_pem()
    assert sorted(path.name for path in tmp_path.iterdir()) == [CERTIFICATE, KEY]


def test_nobody_else_reads_the_key(directory: int, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_create(directory, NOW, MADE)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o600
    assert b"PRIVATE" not in (tmp_path / CERTIFICATE).read_bytes()


@pytest.mark.parametrize("broken", [b"", b"-----BEGIN PRIVATE KEY-----\n", b"\xff" * 100])
@pytest.mark.parametrize("name", [KEY, CERTIFICATE])
def test_half_written_files_are_replaced(directory: int, tmp_path: Path, name: str, broken: bytes) -> None:
    first = load_or_create(directory, NOW, MADE)
    (tmp_path / name).write_bytes(broken)
    second = load_or_create(directory, NOW, MADE)
    assert second.fingerprint() != first.fingerprint()
    assert load_or_create(directory, NOW, MADE).fingerprint() == second.fingerprint()


@pytest.mark.parametrize("name", [KEY, CERTIFICATE])
def test_one_of_the_two_is_not_enough(directory: int, tmp_path: Path, name: str) -> None:
    first = load_or_create(directory, NOW, MADE)
    (tmp_path / name).unlink()
    assert load_or_create(directory, NOW, MADE).fingerprint() != first.fingerprint()


def test_a_key_of_another_certificate_is_replaced(directory: int, tmp_path: Path) -> None:
    load_or_create(directory, NOW, MADE)
    (tmp_path / KEY).write_bytes(Authority.create(NOW).key_pem())
    made = load_or_create(directory, NOW, MADE)
    assert Authority.load((tmp_path / KEY).read_bytes(), made.certificate_pem()).fingerprint() == made.fingerprint()


def test_a_link_is_not_followed(directory: int, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(Authority.create(NOW).key_pem())
    (tmp_path / KEY).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic"):
        load_or_create(directory, NOW, MADE)


def test_one_that_is_given_takes_the_place_of_another(directory: int, tmp_path: Path) -> None:
    assert load(directory) is None
    first, second = Authority.create(NOW), Authority.create(NOW)
    store(directory, first)
    store(directory, second)
    found = load(directory)
    assert found is not None
    assert found.fingerprint() == second.fingerprint()
    assert sorted(path.name for path in tmp_path.iterdir()) == [CERTIFICATE, KEY]


def test_a_writer_that_was_killed_leaves_no_key_beside_a_strangers_certificate(
    directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(directory, Authority.create(NOW))
    real = os.replace

    def killed(source: str, target: str, **more: int) -> None:
        real(source, target, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        store(directory, Authority.create(NOW))
    monkeypatch.undo()
    assert load(directory) is None


def test_a_ca_of_a_secret_is_never_replaced_by_one_that_nobody_trusts(directory: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Secret"):
        load_or_create(directory, NOW, GIVEN)
    given = Authority.create(NOW)
    store(directory, given)
    assert load_or_create(directory, NOW, GIVEN).fingerprint() == given.fingerprint()
    (tmp_path / KEY).write_bytes(b"half")
    with pytest.raises(ConfigError, match="delete this pod"):
        load_or_create(directory, NOW, GIVEN)
    assert (tmp_path / CERTIFICATE).read_bytes() == given.certificate_pem()
