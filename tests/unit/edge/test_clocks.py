import datetime as dt
import re
import time

import pytest

from weir_sidecar.edge import clocks

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_the_time_of_day_is_rfc_3339_in_utc() -> None:
    text = clocks.WallClock()()
    assert RFC3339.fullmatch(text)
    assert abs(dt.datetime.fromisoformat(text) - dt.datetime.now(dt.UTC)) < dt.timedelta(seconds=5)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1700000000.001, "2023-11-14T22:13:20.000Z"),
        (1700000000.9999, "2023-11-14T22:13:20.999Z"),
        (1700000001.5, "2023-11-14T22:13:21.500Z"),
    ],
)
def test_milliseconds_are_cut_not_rounded_into_the_next_second(
    monkeypatch: pytest.MonkeyPatch, moment: float, text: str
) -> None:
    clock = clocks.WallClock()
    clock()
    monkeypatch.setattr(time, "time", lambda: moment)
    assert clock()[:20] == text[:20]
    assert abs(int(clock()[20:23]) - int(text[20:23])) <= 1
    assert clock() == clock()


def test_a_clock_that_is_set_back_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clocks.WallClock()
    monkeypatch.setattr(time, "time", lambda: 1700000000.0)
    assert clock() == "2023-11-14T22:13:20.000Z"
    monkeypatch.setattr(time, "time", lambda: 1600000000.0)
    assert clock() == "2020-09-13T12:26:40.000Z"


def test_ids_are_never_given_twice() -> None:
    one, other = clocks.Ids(), clocks.Ids()
    given = [make() for _ in range(1000) for make in (one, other)]
    assert len(set(given)) == len(given)
    assert max(map(len, given)) < 20


def test_utc_is_aware() -> None:
    assert clocks.utc().utcoffset() == dt.timedelta(0)
