from datetime import UTC, datetime, timedelta

import pytest

from weir_operator.operate.expiry import deletable, end_of

T0 = datetime(2027, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def exception(decision=None, created=T0, **status):
    spec = {"host": "a.example"} | ({"decision": decision} if decision else {})
    return {"metadata": {"creationTimestamp": _text(created)}, "spec": spec, "status": status}


def _text(time):
    return time.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("state", ["Failing", "Bypassed", "Probation"])
def test_a_bypass_of_an_hour_is_deleted_two_hours_after_its_end(state):
    one = exception(state=state, lastSeen=_text(T0), expiresAt=_text(T0 + HOUR))
    assert end_of(one) == T0 + 3 * HOUR
    assert not deletable(one, T0 + 2.99 * HOUR)
    assert deletable(one, T0 + 3 * HOUR)


def test_a_short_bypass_stays_an_hour():
    one = exception(state="Bypassed", lastSeen=_text(T0), expiresAt=_text(T0 + timedelta(minutes=1)))
    assert end_of(one) == T0 + timedelta(minutes=61)


def test_a_probation_whose_end_is_before_it_was_last_seen_stays_an_hour():
    one = exception(state="Probation", lastSeen=_text(T0 + HOUR), expiresAt=_text(T0))
    assert end_of(one) == T0 + HOUR


def test_without_an_expiry_the_default_max_ttl_counts_from_when_it_was_last_seen():
    assert end_of(exception(state="Failing", lastSeen=_text(T0))) == T0 + 72 * HOUR


def test_one_that_turned_out_to_be_trusted_goes_soon():
    one = exception(state="Trusted", lastSeen=_text(T0), expiresAt=_text(T0 + 9 * HOUR))
    assert end_of(one) == T0 + timedelta(minutes=10)


@pytest.mark.parametrize("decision", ["Intercept", "Passthrough"])
def test_a_decision_of_a_person_stays_for_ever(decision):
    one = exception(decision, state="Bypassed", lastSeen=_text(T0), expiresAt=_text(T0 + HOUR))
    assert end_of(one) is None
    assert not deletable(one, T0 + timedelta(days=9999))


def test_without_a_status_its_making_counts():
    assert end_of(exception()) == T0 + 72 * HOUR


def test_times_that_cannot_be_read_count_as_not_given():
    assert end_of(exception(state="Bypassed", lastSeen="yesterday", expiresAt=7)) == T0 + 72 * HOUR
    assert end_of({"metadata": {}, "spec": {}}) is None
