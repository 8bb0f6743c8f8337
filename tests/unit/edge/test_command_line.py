"""The sidecar's command line."""

import subprocess
import sys

import pytest

from weir_sidecar.edge.command_line import UsageError, read_options

DIRECTORIES = ["--run-dir", "r", "--state-dir=s"]


def test_options_and_their_values(monkeypatch):
    monkeypatch.setenv("WEIR_POD_NAMESPACE", "shop")
    monkeypatch.setenv("WEIR_POD_NAME", "web-1")
    more = ["--record", "-", "--group=7", "--ready-fd", "3", "--started-config", "c", "--token-file", "t"]
    options = read_options(DIRECTORIES + more)
    assert (options.run_dir, options.state_dir, options.record) == ("r", "s", "-")
    assert (options.group, options.ready_fd, options.started_config) == (7, 3, "c")
    assert options.pod is not None
    assert (options.pod.namespace, options.pod.name, options.pod.token_file) == ("shop", "web-1", "t")


def test_what_is_not_given_is_not_there():
    options = read_options(DIRECTORIES)
    assert (options.record, options.ready_fd, options.started_config, options.pod, options.group) == (None,) * 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--run-dir and --state-dir must be given"),
        (["--run-dir", "r"], "--state-dir must be given"),
        ([*DIRECTORIES, "--color"], "'--color' is no option"),
        ([*DIRECTORIES, "record", "x"], "'record' is no option"),
        ([*DIRECTORIES, "--record"], "--record needs a value"),
        ([*DIRECTORIES, "--group", "staff"], "--group needs a number"),
        ([*DIRECTORIES, "--ready-fd=-1"], "--ready-fd needs a number"),
    ],
)
def test_what_is_not_understood_is_named(arguments, words):
    with pytest.raises(UsageError, match=words):
        read_options(arguments)


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--nonsense"], 2), ([*DIRECTORIES], 1)])
def test_it_says_what_it_can_do(arguments, status):
    done = subprocess.run(
        [sys.executable, "-m", "weir_sidecar", *arguments], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == status
    assert ("--started-config" in done.stdout + done.stderr) == (status != 1)
    assert "Traceback" not in done.stderr
