"""What all tests share: the lab, made once, and a summary that says aloud what was not run."""

import os
import signal
from collections.abc import Iterator

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from lab.lab import WEIR, Lab

MEASURED = "measured"
"""Where a process of xdist's has its notes in what it hands over at its end."""


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab of namespaces and origins; tests that cannot have it are skipped by name."""
    if os.geteuid() != 0:
        pytest.skip("the lab makes network namespaces: run the tests as root")
    with Lab() as made:
        yield made


@pytest.fixture(scope="session")
def weir_lab(lab: Lab) -> Lab:
    """The lab, where `weir run` works."""
    if not WEIR.exists():
        pytest.fail(f"{WEIR} is missing: run `make setup` first")
    return lab


def pytest_configure(config: pytest.Config) -> None:
    """Let a process of xdist's die of SIGINT, as any other: it ignores it, and so would all that the tests start."""
    if hasattr(config, "workerinput"):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes that nobody can read are called by their argument: some hold random numbers, and processes must agree."""
    return argname if isinstance(val, bytes) and not val.decode("latin1").isprintable() else None


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Say what runs in one process, one test after the other: see `_Rooms`."""
    return _Rooms(config, log)


class _Rooms(LoadScopeScheduling):
    """Tests that load the kernel and look at the whole machine, tests that share an API server, each other file."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        room = path.split("/")[1]
        return {"acceptance": "kernel", "netns": "kernel", "cluster": "cluster", "e2e": "cluster"}.get(room, path)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not run: each reason once, with the tests that it kept from running."""
    reasons: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        _, _, reason = report.longrepr
        reasons.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
    for line in terminalreporter.config.stash.get(NOTES, []):
        terminalreporter.write_line(f"measured: {line}")
    if not reasons:
        terminalreporter.write_line("not run: nothing of what was selected")
        return
    terminalreporter.section("not run", sep="=", yellow=True)
    for reason, tests in sorted(reasons.items()):
        more = f" and {len(tests) - 3} more" if len(tests) > 3 else ""
        terminalreporter.write_line(f"{len(tests)} not run: {reason}: {', '.join(tests[:3])}{more}")


NOTES: pytest.StashKey[list[str]] = pytest.StashKey()


@pytest.fixture(scope="session")
def note(request: pytest.FixtureRequest) -> list[str]:
    """Figures that a test measures and does not judge; the suite prints them at its end."""
    return request.config.stash.setdefault(NOTES, [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send what was measured in a process of xdist's to the one that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[MEASURED] = session.config.stash.get(NOTES, [])


def pytest_testnodedown(node: WorkerController) -> None:
    """Take what such a process has measured; one that crashed says nothing."""
    node.config.stash.setdefault(NOTES, []).extend(getattr(node, "workeroutput", {}).get(MEASURED, []))
