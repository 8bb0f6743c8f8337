"""`weir run` before anything is made: what it refuses, its names, and how it waits between restarts."""

import argparse

import pytest

from weir_cli.commands import run
from weir_cli.pod import identity, names, summary
from weir_cli.pod.errors import SetupError
from weir_cli.pod.supervise import Backoff


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_another_system_is_told_in_one_line_what_it_needs(system: str) -> None:
    said = run.missing(system, 0, [])
    assert said
    assert "needs Linux" in said
    assert system in said
    assert "\n" not in said


def test_a_user_without_privileges_is_told_what_to_run() -> None:
    said = run.missing("linux", 1000, ["run", "--", "echo", "a b"])
    assert said
    assert said.endswith("run -- echo 'a b'")
    assert "sudo" in said
    assert run.missing("linux", 0, []) is None


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        (["--quiet", "--", "curl", "-f", "--", "x"], ["curl", "-f", "--", "x"]),
        (["--quiet", "curl", "--quiet"], ["curl", "--quiet"]),
        (["--", "--odd"], ["--odd"]),
    ],
)
def test_the_command_begins_after_the_options(
    words: list[str], argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    args = parser.parse_args(words)
    assert run.command_line(args) == argv


def test_no_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    assert run.run(parser.parse_args([])) == 125
    assert "no command given" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a", "acceptance-run-1", "x" * 40])
def test_names_that_fit(name: str) -> None:
    pod = names.pod(name)
    assert pod.netns == f"weir-{name}"
    assert len(pod.link) <= 15


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "../x", "a b", "x" * 41, "a\n"])
def test_names_that_do_not_fit(name: str) -> None:
    with pytest.raises(SetupError, match="--name"):
        names.pod(name)


def test_generated_names_are_valid() -> None:
    assert names.pod(names.generated(b"\x00\x01\xff\x10\x20").name).name == "0001ff1020"


def test_the_first_death_costs_no_wait_the_next_ones_up_to_a_second() -> None:
    backoff, waits = Backoff(), []
    for _ in range(7):
        waits.append(backoff.now(0.1))
        backoff = backoff.after(0.1)
    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.now(lived=60) == 0.0
    assert backoff.after(lived=60) == Backoff(0.1)


def test_the_user_is_who_called_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 0)
    user = identity.invoking({"SUDO_UID": "65534"}, None)
    assert user
    assert (user.uid, user.environment()["USER"]) == (65534, "nobody")
    assert identity.invoking({}, None) is None
    assert identity.invoking({"SUDO_UID": "0"}, None) is None
    root = identity.invoking({"SUDO_UID": "65534"}, "root")
    assert root
    assert root.uid == 0


def test_an_unknown_user_is_named() -> None:
    with pytest.raises(SetupError, match="'nobody-at-all'"):
        identity.invoking({}, "nobody-at-all")
    with pytest.raises(SetupError, match="4000000001"):
        identity.invoking({"SUDO_UID": "4000000001"}, None)


def test_the_proxys_user_is_refused() -> None:
    with pytest.raises(SetupError, match="UID 15801"):
        identity.refuse_proxy(15801, 15801)
    identity.refuse_proxy(0, 15801)


def test_the_summary_counts_decisions() -> None:
    lines = [b'{"id":"1","decision":"intercept"}\n', b'{"decision":"intercept"}\n', b'{"decision":"deny"}\n', b"{}\n"]
    assert summary.sentence(summary.from_lines(lines)) == "3 flows: 2 intercepted, 1 denied"
    text = (
        'weir_flows_total{protocol="tls",decision="intercept",reason="default"} 4\n'
        'weir_flows_total{protocol="dns",decision="passthrough",reason="default"} 1\n'
        "weir_flows_open 2\n"
    )
    assert summary.sentence(summary.from_metrics(text)) == "5 flows: 4 intercepted, 1 passed through"
    assert summary.sentence({}) == "0 flows"
