"""What a request goes on with, and what its record tells, where the sidecar takes part in traces."""

import pytest

from weir_sidecar.contract.request import RequestDecision, TraceRecord
from weir_sidecar.core.http_policy import ALLOWED, Edits, RequestVerdict
from weir_sidecar.core.tracing import heard, propagated

TRACE, SPAN, OWN = "a" * 32, "b" * 16, "0102030405060708"
NEW = "0102030405060708090a0b0c0d0e0f10"
HOST = (b"Host", b"a.test")
STATE = (b"TraceState", b"x=1")


def parent(flags="01", version="00"):
    return b"Traceparent", f"{version}-{TRACE}-{SPAN}-{flags}".encode()


def counted(size):
    return bytes(range(1, size + 1))


def passed(fields, verdict=ALLOWED, *, sampled=True):
    """The fields that go on, and what is told."""
    verdict, told = propagated(fields, verdict, counted, sampled=sampled)
    return (fields if verdict.request_edits is None else verdict.request_edits.apply(fields)), told


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_a_trace_goes_on_with_its_id_and_flags(flags, sampled):
    fields, told = passed((HOST, parent(flags), STATE), sampled=not sampled)
    assert fields == [HOST, STATE, (b"traceparent", f"00-{TRACE}-{OWN}-{flags}".encode())]
    assert told == TraceRecord(TRACE, SPAN, sampled, OWN)


@pytest.mark.parametrize(
    "fields",
    [(HOST,), (HOST, STATE), (HOST, parent("0"), STATE), (HOST, parent(version="ff")), (HOST, parent(), parent())],
    ids=["none", "state_alone", "malformed", "version_ff", "two"],
)
@pytest.mark.parametrize(("sampled", "flags"), [(True, "03"), (False, "02")])
def test_without_a_valid_one_a_trace_begins_and_the_state_of_none_goes(fields, sampled, flags):
    gone_on, told = passed(fields, sampled=sampled)
    assert gone_on == [HOST, (b"traceparent", f"00-{NEW}-{OWN}-{flags}".encode())]
    assert told == TraceRecord(NEW, None, sampled, OWN)


def test_it_is_beside_what_a_rule_changes():
    rule = RequestVerdict(RequestDecision.ALLOW, "r", request_edits=Edits(frozenset((b"x",)), ((b"x", b"2"),)), delay=1)
    verdict, _ = propagated((HOST, (b"X", b"1"), parent()), rule, counted, sampled=True)
    assert (verdict.rule, verdict.delay) == ("r", 1)
    edited = verdict.request_edits.apply((HOST, (b"X", b"1"), parent()))
    assert edited == [HOST, (b"x", b"2"), (b"traceparent", f"00-{TRACE}-{OWN}-01".encode())]


@pytest.mark.parametrize("add", [(), ((b"traceparent", b"mine"),)], ids=["removes", "sets"])
def test_a_rule_about_the_field_has_the_last_word(add):
    rule = RequestVerdict(RequestDecision.ALLOW, "r", request_edits=Edits(frozenset((b"traceparent",)), add))
    fields, told = passed((HOST, parent()), rule)
    assert fields == [HOST, *add]
    assert told == TraceRecord(TRACE, SPAN, sampled=True)


def test_a_denied_request_has_a_span_too():
    deny = RequestVerdict(RequestDecision.DENY, "r")
    assert propagated((parent(),), deny, counted, sampled=True) == (deny, TraceRecord(TRACE, SPAN, True, OWN))


def test_what_is_only_heard():
    assert heard((HOST, parent("00"))) == TraceRecord(TRACE, SPAN, sampled=False)
    assert heard((HOST, parent("0"))) is None
