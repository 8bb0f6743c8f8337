"""The cache against whole populations of clients: each row of the client table, bursts, and 10,000 that merely look bad."""

import random
from collections import deque

import pytest

from samples.trust_clients import (
    BEFORE_CERTIFICATE,
    CANCELLED_MIDWAY,
    DISTRUSTING,
    HEALTH_CHECK,
    PRECONNECTED,
    PRECONNECTED_GONE,
    spoke,
)
from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.flow import Reason
from weir_sidecar.core.tls_outcome import ClientSide, classify
from weir_sidecar.core.trust_cache import Bypass, InterceptNow, TrustCache, Wait

SETTINGS = FailOpen()
JA4 = "t13d1516h2_8daaf6152771_b186095e22b6"

ROWS = [
    pytest.param(side, id=f"{client} on TLS 1.{minor}")
    for client, sides in DISTRUSTING.items()
    for minor, side in zip((2, 3), sides, strict=True)
]


def connect(cache: TrustCache, *sides: ClientSide, host: str = "a.test", now: float = 0.0) -> Reason | None:
    """One connection from beginning to end, as it looks at each of the moments that `sides` are; tells how it went."""
    admission = cache.admit(host, 1000, JA4, now)
    assert not isinstance(admission, Wait)
    if isinstance(admission, InterceptNow):
        for side in sides:
            cache.report(admission.ticket, classify(side), side.alert, now + side.seconds_after_flight)
    return admission.reason


@pytest.mark.parametrize("side", ROWS)
@pytest.mark.parametrize("pause", [0.0, 1.0, 60.0, 1500.0])
def test_every_client_is_recognised_within_two_attempts(side: ClientSide, pause: float) -> None:
    cache = TrustCache(SETTINGS)
    reasons = [connect(cache, side, now=attempt * (pause + side.seconds_after_flight)) for attempt in range(3)]
    assert reasons.count(None) <= 2
    assert reasons[2] is Reason.CLIENT_DISTRUSTS_CA


def burst(side: ClientSide, hosts: list[str]) -> tuple[int, float]:
    """All flows at once, the waiting ones served in order as the edge would; how many are lost, and when it is over."""
    cache = TrustCache(SETTINGS)
    waiting, in_flight, lost, now = deque((host, 0.0) for host in hosts), [], 0, 0.0
    while waiting or in_flight:
        for _ in range(len(waiting)):
            host, since = waiting.popleft()
            match cache.admit(host, 1000, JA4, now, since):
                case InterceptNow(ticket=ticket):
                    lost += 1
                    in_flight.append((now + side.seconds_after_flight, ticket))
                case Wait():
                    waiting.append((host, since))
                case Bypass():
                    pass
        if in_flight:
            in_flight.sort(key=lambda flight: flight[0])
            now, ticket = in_flight.pop(0)
            cache.report(ticket, classify(side), side.alert, now)
    return lost, now


QUICK = [row for row in ROWS if "AWS" not in str(row.id)]
STALLING = [row for row in ROWS if "meanwhile" in str(row.id)]


@pytest.mark.parametrize("side", QUICK + STALLING)
def test_a_burst_of_fifty_loses_at_most_two(side: ClientSide) -> None:
    lost, over = burst(side, ["a.test"] * 50)
    assert lost == (1 if side.alert else 2)
    assert over <= 8.0


@pytest.mark.parametrize("side", QUICK)
def test_a_burst_to_fifty_hosts_loses_three(side: ClientSide) -> None:
    lost, _ = burst(side, [f"{number}.test" for number in range(50)])
    assert lost == 3


HARMLESS = {
    "healthy": (spoke(),),
    "cancelled early": (BEFORE_CERTIFICATE,),
    "cancelled midway": (CANCELLED_MIDWAY,),
    "pre-connected, then used": (PRECONNECTED, spoke()),
    "pre-connected, never used": (PRECONNECTED, PRECONNECTED_GONE),
    "health check": (HEALTH_CHECK,),
}


@pytest.mark.parametrize("seed", range(5))
def test_no_false_flip_in_a_mix_of_ten_thousand(seed: int) -> None:
    rng = random.Random(seed)
    cache = TrustCache(SETTINGS)
    hosts = [f"{number}.test" for number in range(5)]
    now = 0.0
    for host in hosts:
        connect(cache, spoke(), host=host)
    for _ in range(10_000):
        now += rng.expovariate(1.0)
        kind = rng.choice(list(HARMLESS))
        assert connect(cache, *HARMLESS[kind], host=rng.choice(hosts), now=now) is None


@pytest.mark.parametrize("kind", HARMLESS)
def test_no_false_flip_in_ten_thousand_of_one_kind_where_trust_was_proven(kind: str) -> None:
    cache = TrustCache(SETTINGS)
    connect(cache, spoke())
    for number in range(10_000):
        assert connect(cache, *HARMLESS[kind], now=number * 0.05) is None


def test_a_health_check_of_weeks_does_not_flip_a_client_that_once_spoke() -> None:
    cache = TrustCache(SETTINGS)
    connect(cache, spoke())
    for number in range(100_000):
        assert connect(cache, HEALTH_CHECK, now=number * 30.0) is None


@pytest.mark.parametrize("kind", ["cancelled early", "pre-connected, then used", "pre-connected, never used"])
def test_no_false_flip_in_ten_thousand_of_one_kind_from_a_stranger(kind: str) -> None:
    cache = TrustCache(SETTINGS)
    for number in range(10_000):
        assert connect(cache, *HARMLESS[kind], now=number * 0.05) is None


def test_the_limit_a_stranger_that_only_ever_checks_is_passed_through_and_healed_by_its_first_byte() -> None:
    cache = TrustCache(SETTINGS)
    reasons = [connect(cache, HEALTH_CHECK, now=float(number)) for number in range(3)]
    assert reasons == [None, None, Reason.CLIENT_DISTRUSTS_CA]
    assert connect(cache, spoke(), now=3602.0) is Reason.PROBATION
    for number in range(10_000):
        assert connect(cache, HEALTH_CHECK, now=3603.0 + number) is None


def test_the_limit_trust_that_is_lost_in_silence_is_noticed_after_ten_minutes() -> None:
    cache = TrustCache(SETTINGS)
    connect(cache, spoke())
    broken = [connect(cache, CANCELLED_MIDWAY, now=second * 1.0) for second in range(700)]
    assert broken.index(Reason.CLIENT_DISTRUSTS_CA) == 602  # it may take the whole of a row after the ten minutes
