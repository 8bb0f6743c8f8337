import os
import stat
from pathlib import Path

import pytest

from weir_sidecar.podsetup.errors import SetupError
from weir_sidecar.podsetup.volume import Directory, read_together


@pytest.fixture
def volume(tmp_path: Path) -> Directory:
    tmp_path.chmod(0o777)
    return Directory.volume(str(tmp_path))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("umask", [0, 0o077])
def test_files_and_directories_have_the_modes_asked_for(volume: Directory, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        private, public = volume.subdirectory("run", 0o700), volume.subdirectory("certs", 0o755)
        private.write("key", b"secret", 0o600)
        public.write("ca", b"public", 0o644)
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("run", "certs", "run/key", "certs/ca")] == [0o700, 0o755, 0o600, 0o644]


def test_a_file_that_is_mounted_somewhere_is_changed_in_place(volume: Directory, tmp_path: Path) -> None:
    volume.write("bundle", b"old and longer", 0o644)
    with (tmp_path / "bundle").open("rb") as mounted:  # a subPath mount holds the file as this does
        volume.write("bundle", b"new", 0o644)
        assert mounted.read() == b"new"
        volume.write("bundle", b"newer than new", 0o644)
        mounted.seek(0)
        assert mounted.read() == b"newer than new"
    assert names(tmp_path) == ["bundle"]


def test_what_is_equal_is_not_touched(volume: Directory, tmp_path: Path) -> None:
    volume.write("bundle", b"text", 0o644)
    os.utime(tmp_path / "bundle", ns=(1, 1))
    volume.write("bundle", b"text", 0o644)
    assert (tmp_path / "bundle").stat().st_mtime_ns == 1


def test_what_a_killed_process_left_does_no_harm(volume: Directory, tmp_path: Path) -> None:
    (tmp_path / ".bundle.part").symlink_to("/etc/passwd")
    volume.write("bundle", b"text", 0o644)
    assert (tmp_path / "bundle").read_bytes() == b"text"
    assert names(tmp_path) == ["bundle"]


def test_links_are_refused_and_not_followed(volume: Directory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("theirs")
    (tmp_path / "run").symlink_to("elsewhere")
    (tmp_path / "bundle").symlink_to("elsewhere/file")
    with pytest.raises(SetupError, match=r"run: .*no link"):
        volume.subdirectory("run", 0o700)
    with pytest.raises(SetupError, match=r"bundle: .*no link"):
        volume.write("bundle", b"ours", 0o644)
    with pytest.raises(SetupError, match=r"bundle: .*no link"):
        volume.read("bundle")
    assert (tmp_path / "elsewhere" / "file").read_text() == "theirs"


def test_the_volume_itself_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for name in ("link", "missing"):
        with pytest.raises(SetupError, match=f"{name}: .*must be a volume"):
            Directory.volume(str(tmp_path / name))


def test_a_pipe_or_a_directory_is_no_file(volume: Directory, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "directory"):
        with pytest.raises(SetupError, match=name):
            volume.write(name, b"", 0o644)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_what_another_user_made_is_refused(volume: Directory, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "file").write_text("theirs")
    for name in ("run", "file"):
        os.chown(tmp_path / name, 1234, 1234)
    for use in (lambda: volume.subdirectory("run", 0o700), lambda: volume.write("file", b"", 0o644)):
        with pytest.raises(SetupError, match="owned by uid 1234"):
            use()
    assert (tmp_path / "file").read_text() == "theirs"


def test_holds_these_and_no_others(volume: Directory, tmp_path: Path) -> None:
    volume.hold({"a.0": b"a"}, {"bundle.crt": "../bundle.crt"}, 0o644)
    volume.hold({"b.0": b"b"}, {"bundle.crt": "../bundle.crt"}, 0o644)
    assert names(tmp_path) == ["b.0", "bundle.crt"]
    assert (tmp_path / "bundle.crt").readlink() == Path("../bundle.crt")
    volume.hold({}, {"bundle.crt": "elsewhere"}, 0o644)
    assert names(tmp_path) == ["bundle.crt"]
    assert (tmp_path / "bundle.crt").readlink() == Path("elsewhere")


def test_a_secrets_files_are_of_one_version(tmp_path: Path) -> None:
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        for name in ("tls.crt", "tls.key"):
            (tmp_path / version / name).write_text(version)
    (tmp_path / "..data").symlink_to("..2")
    (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
    assert read_together(str(tmp_path), ("tls.crt", "tls.key", "ca.crt")) == {"tls.crt": b"..2", "tls.key": b"..2"}
    assert read_together(str(tmp_path / "..1"), ("tls.crt",)) == {"tls.crt": b"..1"}
    with pytest.raises(FileNotFoundError):
        read_together(str(tmp_path / "missing"), ())
