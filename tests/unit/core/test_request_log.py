import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from weir_sidecar.contract.request import HTTPVersion, RequestDecision, RequestError, RequestRecord, Scheme
from weir_sidecar.contract.request_log import BodyLog, HeaderLog, QueryLog, RequestLog
from weir_sidecar.core.request_log import LogRules

RECORD = RequestRecord(
    time="2026-01-02T03:04:05.678Z", flow="f-1", number=1, protocol=HTTPVersion.HTTP1, scheme=Scheme.HTTP, host="a.test",
    port=80, method="GET", path="/", status=200, request_bytes=0, response_bytes=5, ttfb_ms=1.0, duration_ms=2.0,
    rule=None, decision=RequestDecision.ALLOW,
)  # fmt: skip
FIELDS = [
    (b"Host", b"a.test"),
    (b"AUTHORIZATION", b"Bearer s3cret"),
    (b"proxy-authorization", b"Basic s3cret"),
    (b"Cookie", b"a=s3cret"),
    (b"Set-Cookie", b"a=s3cret; Secure"),
    (b"x-api-key", b"s3cret"),
    (b"X-Amz-Security-Token", b"s3cret"),
    (b"Referer", b"https://a.test/x?code=s3cret&b#s3cret"),
    (b"Location", b"/y?token=s3cret#access_token=s3cret"),
    (b"Content-Location", b"z?code=s3cret"),
    (b"Link", b"<https://me:s3cret@a.test/?page=s3cret>; rel=next"),
    (b"X-Forwarded-Uri", b"/a?b=s3cret"),
    (b"X-Session-Id", b"s3cret"),
    (b"X-Odd", b"\xff?a=b"),
    (b"Accept", b"*/*;q=0.8"),
]


def rules(**log):
    return LogRules(RequestLog(**log))


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (None, "/x"), (b"", "/x?"), (b"a=1", "/x?a=*"), (b"a=1&b=2&c", "/x?a=*&b=*&*"), (b"secret", "/x?*"),
        (b"a=&b", "/x?a=*&*"), (b"a=x=y&&c=1", "/x?a=*&&c=*"),
    ],
)  # fmt: skip
def test_no_value_of_a_query_is_told(query, told):
    assert LogRules(UNSET).path(b"/x", query) == told


@given(st.binary(max_size=30))
def test_no_more_of_a_query_is_told_than_names(query):
    names = {pair.partition(b"=")[0] for pair in query.split(b"&") if b"=" in pair}
    left = LogRules(UNSET).path(b"", query)[1:].split("&")
    assert {one.partition("=")[0] for one in left if "=" in one} == {
        name.decode("utf-8", "backslashreplace") for name in names
    }
    assert all(one.partition("=")[2] == "*" if "=" in one else one in ("*", "") for one in left)


def test_queries_are_told_where_a_policy_says_so_but_for_those_it_redacts():
    told = rules(query=QueryLog.ALL, redact_query=("to ken", "b"))
    assert told.path(b"/x", b"a=1&to%20ken=2&to+ken=3&b&b=4=5") == "/x?a=1&to%20ken=*&to+ken=*&b&b=*"
    assert rules(query=QueryLog.ALL).path(b"/x", b"a=1") == "/x?a=1"


def test_by_itself_no_header_field_is_told():
    assert LogRules(UNSET).headers(FIELDS, secret=False) is UNSET
    assert not LogRules(UNSET).captures


def test_names_alone():
    told = rules(headers=HeaderLog.NAMES).headers(FIELDS, secret=False)
    assert told == tuple((name.decode(), None) for name, _ in FIELDS)


def test_secrets_are_redacted_and_names_stay_as_they_were_sent():
    told = rules(headers=HeaderLog.REDACTED, redact_headers=("host",)).headers(FIELDS, secret=False)
    assert "s3cret" not in repr(told)
    assert told == (
        ("Host", "*"), ("AUTHORIZATION", "*"), ("proxy-authorization", "*"), ("Cookie", "*"), ("Set-Cookie", "*"),
        ("x-api-key", "*"), ("X-Amz-Security-Token", "*"), ("Referer", "https://a.test/x?code=*&*#*"),
        ("Location", "/y?token=*#*"), ("Content-Location", "z?code=*"), ("Link", "<https://*@a.test/?page=*"),
        ("X-Forwarded-Uri", "/a?b=*"), ("X-Session-Id", "*"), ("X-Odd", "\\xff?a=b"), ("Accept", "*/*;q=0.8"),
    )  # fmt: skip


def test_all_is_all_but_what_the_policy_redacts():
    told = rules(headers=HeaderLog.ALL, redact_headers=("cookie",)).headers(FIELDS[:4], secret=False)
    assert told == (
        ("Host", "a.test"), ("AUTHORIZATION", "Bearer s3cret"), ("proxy-authorization", "Basic s3cret"), ("Cookie", "*"),
    )  # fmt: skip


@pytest.mark.parametrize("headers", [HeaderLog.NAMES, HeaderLog.REDACTED, HeaderLog.ALL])
def test_where_a_credential_is_about_no_value_is_told(headers):
    told = rules(headers=headers).headers(FIELDS, secret=True)
    assert told == tuple((name.decode(), None) for name, _ in FIELDS)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (b"application/json", True), (b"Application/JSON; charset=utf-8", True), (b"text/html", True), (b"text", False),
        (b"application/jsonp", False), (b"image/png", False), (b"", False),
    ],
)  # fmt: skip
def test_bodies_by_their_type(kind, wanted):
    some = rules(bodies=BodyLog(response=True, content_types=("application/json", "text/*")))
    assert some.wants_body([(b"Content-Type", kind)]) is wanted
    assert rules(bodies=BodyLog(response=True)).wants_body([(b"content-type", kind)])


def kept(log, **changes):
    return log.keeps(msgspec.structs.replace(RECORD, **changes))


def test_a_sample_is_the_share_that_was_asked_for_and_the_same_each_time():
    log = rules(sample=0.25)
    chosen = [kept(log, flow=f"f-{flow}", number=number) for flow in range(100) for number in range(1, 101)]
    assert 2300 < sum(chosen) < 2700
    assert chosen == [kept(log, flow=f"f-{flow}", number=number) for flow in range(100) for number in range(1, 101)]
    wider = rules(sample=0.5)
    assert all(
        kept(wider, flow=f"f-{flow}", number=number)
        for flow in range(100)
        for number in range(1, 101)
        if chosen[100 * flow + number - 1]
    )


def test_what_was_denied_or_failed_is_always_told():
    nothing = rules(sample=0)
    assert not kept(nothing)
    assert not kept(nothing, status=404)
    assert kept(nothing, status=500)
    assert kept(nothing, status=None)
    assert kept(nothing, decision=RequestDecision.DENY)
    assert kept(nothing, error=RequestError.CLIENT_GONE)
    assert kept(LogRules(UNSET))
