"""The config in force: who may change it, what is kept on disk, and that a bad one changes nothing."""

import os

import msgspec
import pytest

from weir_sidecar.contract.config import Action, FailureMode, SidecarConfig, Stream
from weir_sidecar.contract.stream import Applied
from weir_sidecar.edge import config_file
from weir_sidecar.edge.current_config import CurrentConfig

STARTED = SidecarConfig(revision="first", workload="w", stream=Stream("s:1", "PEM"))


class Sidecar:
    def __init__(self, directory, started=STARTED):
        self.adopted, self.said = [], []
        self.wrong = None
        self.config = CurrentConfig(STARTED, started, directory, self.adopt, self.said.append)

    def adopt(self, config):
        if self.wrong is not None:
            raise self.wrong
        self.adopted.append(config)


@pytest.fixture
def directory(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    config_file.replace(descriptor, STARTED)
    yield descriptor
    os.close(descriptor)


def changed(**fields):
    return msgspec.structs.replace(STARTED, revision="next", **fields)


def test_a_config_from_the_control_plane_is_in_force_and_on_disk(directory):
    sidecar = Sidecar(directory)
    new = changed(default_action=Action.DENY)
    assert sidecar.config.take(new) == Applied("next")
    assert sidecar.adopted == [new]
    assert sidecar.config.config == new
    assert config_file.read(directory) == new
    assert sidecar.said == ["config next is in force"]
    assert sidecar.config.kernel_revision == "first"


def test_what_the_kernel_has_is_kept_and_named(directory):
    sidecar = Sidecar(directory)
    applied = sidecar.config.take(changed(failure_mode=FailureMode.CLOSED))
    assert applied == Applied("next", after_restart=("failureMode",))
    assert config_file.read(directory).failure_mode is FailureMode.OPEN
    assert sidecar.said == ["config next is in force; when the pod starts anew also failureMode"]


@pytest.mark.parametrize("wrong", [ValueError("a bad CIDR"), OSError("no")])
def test_a_config_that_cannot_be_adopted_leaves_the_last_good_one(directory, wrong):
    sidecar = Sidecar(directory)
    sidecar.wrong = wrong
    assert sidecar.config.take(changed()) == Applied("next", problem=str(wrong))
    assert sidecar.config.config == STARTED
    assert config_file.read(directory) == STARTED


def test_the_config_in_force_told_again_costs_nothing(directory):
    sidecar = Sidecar(directory)
    assert sidecar.config.take(STARTED) == Applied("first")
    assert (sidecar.adopted, sidecar.said) == ([], [])


def test_a_file_that_cannot_be_written_does_not_keep_a_config_from_being_in_force(tmp_path):
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    tmp_path.rmdir()
    sidecar = Sidecar(directory)
    assert sidecar.config.take(changed()) == Applied("next")
    assert "will not survive a restart" in sidecar.said[1]
    os.close(directory)


def test_a_reload_reads_the_file(directory):
    sidecar = Sidecar(directory)
    new = changed(default_action=Action.DENY, failure_mode=FailureMode.CLOSED)
    config_file.replace(directory, new)
    sidecar.config.reload()
    assert sidecar.adopted == [msgspec.structs.replace(new, failure_mode=FailureMode.OPEN)]


def test_without_another_file_for_the_kernel_a_reload_takes_all(directory):
    sidecar = Sidecar(directory, started=None)
    new = changed(failure_mode=FailureMode.CLOSED, workload="other")
    config_file.replace(directory, new)
    sidecar.config.reload()
    assert sidecar.adopted == [new]
    assert sidecar.config.kernel_revision == "next"


@pytest.mark.parametrize("content", [b"", b"{", b'{"version":"weir.dev/sidecar/v9"}'])
def test_a_file_that_is_no_config_changes_nothing(directory, tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    sidecar = Sidecar(directory)
    sidecar.config.reload()
    assert sidecar.adopted == []
    assert "the last good one stays" in sidecar.said[0]


def test_the_file_is_replaced_and_not_written_into(directory, tmp_path):
    (tmp_path / "config.json").rename(tmp_path / "old")
    (tmp_path / "config.json").symlink_to("old")
    config_file.replace(directory, changed())
    assert config_file.read(directory) == changed()
    assert not (tmp_path / "config.json").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "old"}
