"""Waiting between attempts: longer each time, up to a bound, and never the whole crowd at once."""

import pytest

from weir_sidecar.core.backoff import FIRST, LONGEST, REFUSED, Backoff


def test_it_doubles_up_to_the_longest() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.failed() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_long_row_stays_bounded() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.failed() for _ in range(5000)][-1] == LONGEST


def test_a_success_ends_the_row() -> None:
    backoff = Backoff(lambda: 1.0)
    backoff.failed()
    backoff.failed()
    backoff.succeeded()
    assert backoff.failed() == FIRST


@pytest.mark.parametrize("number", [0.0, 0.25, 0.999])
def test_the_jitter_is_full(number: float) -> None:
    assert Backoff(lambda: number).failed() == FIRST * number


@pytest.mark.parametrize("number", [0.0, 0.5, 0.999])
def test_a_refusal_waits_about_a_minute(number: float) -> None:
    assert REFUSED / 2 <= Backoff(lambda: number).refused() < REFUSED * 1.5
