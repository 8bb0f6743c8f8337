"""What one connection says about trust: the measured client table, and what must never match it."""

import pytest

from samples.trust_clients import (
    BEFORE_CERTIFICATE,
    DISTRUSTING,
    HEALTH_CHECK,
    NSS_12,
    PRECONNECTED,
    PRECONNECTED_GONE,
    broke_off,
    left,
    refused,
    spoke,
)
from weir_sidecar.core.tls_outcome import CERTIFICATE_ALERTS, ClientEnd, ClientSide, Outcome, classify

SUSPICIOUS = {Outcome.SUSPICION, Outcome.WEAK_SUSPICION}

ROWS = [
    pytest.param(side, side.alert, id=f"{client} on TLS 1.{minor}")
    for client, sides in DISTRUSTING.items()
    for minor, side in zip((2, 3), sides, strict=True)
]


@pytest.mark.parametrize(("side", "alert"), ROWS)
def test_every_distrusting_client_is_noticed(side: ClientSide, alert: int | None) -> None:
    outcome = classify(side)
    assert outcome is Outcome.DISTRUSTED if alert is not None else outcome in SUSPICIOUS


def test_suspicion_is_weak_where_the_handshake_was_completed() -> None:
    assert classify(broke_off(ClientEnd.FIN)) is Outcome.SUSPICION
    assert classify(left(ClientEnd.FIN)) is Outcome.WEAK_SUSPICION


@pytest.mark.parametrize("alert", range(256))
def test_only_certificate_alerts_are_distrust(alert: int) -> None:
    outcome = classify(refused(alert))
    if alert in {42, 43, 44, 45, 46, 48}:
        assert outcome is Outcome.DISTRUSTED
    else:
        assert outcome is Outcome.NEUTRAL


@pytest.mark.parametrize("alert", sorted(CERTIFICATE_ALERTS))
@pytest.mark.parametrize("end", ClientEnd)
def test_an_alert_before_our_certificate_never_counts(alert: int, end: ClientEnd) -> None:
    assert classify(ClientSide(end, alert=alert)) is Outcome.NEUTRAL


@pytest.mark.parametrize("alert", [None, *sorted(CERTIFICATE_ALERTS)])
@pytest.mark.parametrize("end", ClientEnd)
def test_nothing_that_follows_application_data_is_distrust(alert: int | None, end: ClientEnd) -> None:
    assert classify(spoke(end, alert)) is Outcome.TRUSTED


def test_a_completed_handshake_is_no_shield_against_an_alert() -> None:
    assert classify(NSS_12) is Outcome.DISTRUSTED


@pytest.mark.parametrize(
    "side",
    [
        pytest.param(BEFORE_CERTIFICATE, id="gone before our Certificate"),
        pytest.param(ClientSide(ClientEnd.FIN), id="TCP health check"),
        pytest.param(ClientSide(ClientEnd.OPEN, seconds_after_flight=60.0), id="waiting for the upstream"),
        pytest.param(ClientSide(ClientEnd.UPSTREAM), id="upstream failed"),
        pytest.param(broke_off(ClientEnd.UPSTREAM), id="we ended it after the flight"),
        pytest.param(left(ClientEnd.UPSTREAM), id="server spoke and closed"),
        pytest.param(ClientSide(ClientEnd.ALERT, alert=70), id="protocol_version"),
        pytest.param(ClientSide(ClientEnd.ALERT, alert=40), id="no shared cipher"),
        pytest.param(refused(90), id="user_canceled"),
        pytest.param(PRECONNECTED_GONE, id="pre-connected, unused"),
        pytest.param(left(ClientEnd.RST, 3600.0), id="pre-connected, unused, reset"),
        pytest.param(left(ClientEnd.OPEN, 0.1), id="just connected"),
        pytest.param(broke_off(ClientEnd.OPEN, 3.9), id="a slow client"),
    ],
)
def test_what_must_not_match(side: ClientSide) -> None:
    assert classify(side) is Outcome.NEUTRAL


@pytest.mark.parametrize("seconds", [0.25, 4.0, 27.0, 86400.0])
def test_an_idle_client_with_a_completed_handshake_has_stayed(seconds: float) -> None:
    assert classify(left(ClientEnd.OPEN, seconds)) is Outcome.STAYED
    assert classify(PRECONNECTED) is Outcome.STAYED


def test_close_notify_is_an_end_and_no_alert() -> None:
    side = ClientSide(ClientEnd.CLOSE_NOTIFY, alert=0, certificate_sent=True, handshake_completed=True)
    assert classify(side) is Outcome.WEAK_SUSPICION
    assert classify(HEALTH_CHECK) is Outcome.WEAK_SUSPICION
