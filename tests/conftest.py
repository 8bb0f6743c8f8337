"""What all tests share: the lab, made once, and a summary that says aloud what was not run."""

import os
from collections.abc import Iterator

import pytest

from lab.lab import WEIR, Lab


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


@pytest.fixture
def note(request: pytest.FixtureRequest) -> list[str]:
    """Figures that a test measures and does not judge; the suite prints them at its end."""
    return request.config.stash.setdefault(NOTES, [])
