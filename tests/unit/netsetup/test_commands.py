"""Errors of set-up say what was run, what it said, and what to do next."""

import sys

import pytest

from weir_sidecar.netsetup import commands
from weir_sidecar.netsetup.commands import CaptureError, run


def test_output_is_returned_and_stdin_given() -> None:
    assert run("cat", stdin="table") == "table"


def test_a_failure_tells_command_words_and_advice() -> None:
    with pytest.raises(CaptureError) as caught:
        run("sh", "-c", "echo 'no such chain' >&2; exit 3", advice="look again")
    assert str(caught.value) == "sh -c echo 'no such chain' >&2; exit 3: no such chain; look again"


def test_a_silent_failure_tells_its_status() -> None:
    with pytest.raises(CaptureError, match="exit status 3"):
        run("sh", "-c", "exit 3")


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CaptureError, match="install the package iproute2"):
        run("ip", "link")


def test_a_program_that_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_SECONDS", 0.01)
    with pytest.raises(CaptureError, match="no answer"):
        run(sys.executable, "-c", "import time; time.sleep(5)")
