"""What the agent does about the plugin when it ends."""

from collections.abc import Callable

import pytest

from weir_sidecar.node import __main__ as program


class Installed:
    removed = False

    def remove(self) -> None:
        self.removed = True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "time", Clock())


def leaving(is_gone: Callable[[], bool | None]) -> bool:
    installed = Installed()
    program._leave(installed, is_gone)  # type: ignore[arg-type]
    return installed.removed


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("answers", "removed"), [([True], True), ([False], False), ([None, None, True], True), ([None, None, False], False)]
)
def test_it_is_taken_away_only_if_the_daemonset_is_gone(answers: list[bool | None], *, removed: bool) -> None:
    left = iter(answers)
    assert leaving(lambda: next(left)) is removed
    assert list(left) == []


@pytest.mark.usefixtures("clock")
def test_while_nobody_can_say_it_stays_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[None] = []

    def unknown() -> None:
        asked.append(None)

    assert not leaving(unknown)
    assert 10 < len(asked) < 30  # the kubelet gives it 30 s
    assert "the plugin stays" in capsys.readouterr().err
