"""The filter language: what it lets through, what it says about words that it cannot read, and its algebra."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import records
from weir_cli.flows.fields import FIELDS, Kind
from weir_cli.flows.filters import Filter, FilterError, parse
from weir_sidecar.contract.flow import Client, Decision, Protocol, Reason
from weir_sidecar.contract.request import RequestDecision, RequestError, TraceRecord

DOCS = Path(__file__).parents[4] / "docs/flows.md"
FLOW = records.flow(
    0x1C, host="api.example.com", address="192.0.2.17", client=Client(uid=1000, ja4="t13d3112h2_e8f1e7e78f70_b26ce05bbdd6")
)  # fmt: skip
PLAIN = records.told(FLOW, pod="web-7d9")
REQUEST = records.told(
    records.request(
        2, 0x1C, host="api.example.com", method="POST", path="/v1/Items?q=*&x=", status=503, request_bytes=5 << 20,
        response_bytes=0, ttfb_ms=None, duration_ms=250.0, rule="web/api/write", error=RequestError.UPSTREAM_GONE,
        trace=TraceRecord("4bf9", None, sampled=True),
    ),
    pod="web-7d9",
    flow=FLOW,
)  # fmt: skip
ORPHAN = records.told(REQUEST.record)


@pytest.mark.parametrize(
    ("text", "flow", "request_"),
    [
        ("", True, True),
        ("host:api.example.com", True, True),
        ("host:API.example.com", True, True),
        ("host:example.com", False, False),
        ("host:*.example.com", True, True),
        ("host:*.example.org,*.example.com", True, True),
        ("-host:*.example.com", False, False),
        ("path:/v1/items", False, True),
        ("path:/v1/*", False, True),
        ("path:/v1", False, False),
        ("path:/v1/items?q=*", False, True),
        ('path:"/v1/*"', False, False),
        ("-path:/health", True, True),
        ("method:post", False, True),
        ("method:GET,POST", False, True),
        ("status:503", False, True),
        ("status:>=500", False, True),
        ("status:>503", False, False),
        ("status:<=503", False, True),
        ("status:<503", False, False),
        ("status:4xx,5XX", False, True),
        ("status:500..503", False, True),
        ("status:400..499", False, False),
        ("status:*", False, True),
        ("-status:*", True, False),
        ("decision:allow", False, True),
        ("decision:intercept", True, False),
        ("reason:rule", True, True),
        ("reason:upstream_*", False, False),
        ("rule:web/*", False, True),
        ("error:*", False, True),
        ("-error:*", True, False),
        ("error:upstream_gone", False, True),
        ("proto:tls", True, False),
        ("proto:h2,http/1.1", False, True),
        ("is:request", False, True),
        ("is:flow", True, False),
        ("id:3f0a-1c", True, True),
        ("id:3f0a-1c/2", False, True),
        ("id:3f0a9c21d7-1c", True, True),
        ("pod:web-*", True, True),
        ("uid:1000", True, True),
        ("uid:0", False, False),
        ("ja4:t13d*", True, True),
        ("address:192.0.2.17", True, True),
        ("address:192.0.2.0/24", True, True),
        ("address:2001:db8::/32", False, False),
        ("port:443", True, True),
        ("up:>=5M", False, True),
        ("up:5M", False, True),
        ("down:>10K", True, False),
        ("ms:>100", False, True),
        ("ttfb:*", False, False),
        ("trace:4bf9", False, True),
        ("trace:4bf", False, False),
        ("items", False, True),
        ("POST", False, True),
        ("EXAMPLE", True, True),
        ("-items", True, False),
        ('"v1/items?q=*&x="', False, True),
        ("host:*.example.com status:>=500 -path:/health", False, True),
        ("  host:*  ", True, True),
        ("HOST:api.*", True, True),
    ],
)
def test_what_a_filter_lets_through(text, flow, request_):
    assert (parse(text).matches(PLAIN), parse(text).matches(REQUEST)) == (flow, request_)


def test_what_is_not_known_of_an_open_flow_matches_nothing():
    assert not parse("uid:1000").matches(ORPHAN)
    assert parse("-uid:1000").matches(ORPHAN)
    assert parse("port:443").matches(ORPHAN)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("foo:bar", ["'foo' is no field", "host, path", "quote text"]),
        ("example.com:443", ["'example.com' is no field"]),
        ("decision:denied", ["decision", "'denied'", "allowed: intercept, passthrough, deny, allow"]),
        ("status:often", ["status", "'often'", ">=N", "4xx"]),
        ("status:>=", ["'>='"]),
        ("address:example.com", ["address", "'example.com'", "10.0.0.0/8"]),
        ("host:", ["host", "a value is missing"]),
        ("host:a,,b", ["host", "a value is missing"]),
        ("-", ["'-'", "nothing to look for"]),
        ('""', ["nothing to look for"]),
        ('host:"a b', ["a quote is not closed"]),
        ("is:response", ["'response'", "flow, request"]),
    ],
)
def test_what_cannot_be_read_is_named_with_what_is_allowed(text, words):
    with pytest.raises(FilterError) as told:
        parse(text)
    assert all(word in str(told.value) for word in words)


def test_quotes_keep_words_together_and_take_signs_as_they_are():
    told = records.told(records.request(path='/a b,c"d'))
    assert parse(r'path:"/a b,c\"d"').matches(told)
    assert parse('path:/a" "b*').matches(told)
    assert not parse('path:"/a b"').matches(told)
    assert not parse(r'path:"/a*"').matches(told)
    assert parse(r'"-a:b"').matches(records.told(records.request(path="/x-a:b")))


def test_a_file_that_says_what_is_no_address_is_no_error():
    assert not parse("address:10.0.0.0/8").matches(records.told(records.flow(address="here")))


def test_every_field_finds_its_words():
    for name, field in FIELDS.items():
        if field.kind is Kind.WORD:
            assert all(parse(f"{name}:{word}").terms for word in field.words)
    assert set(FIELDS["decision"].words) == {*Decision, *RequestDecision}


def test_the_documentation_lists_the_fields_in_their_order():
    text = DOCS.read_text().partition("## Filters")[2].partition("## ")[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    assert [name for cell in cells for name in re.findall(r"`(\w+)`", cell)] == list(FIELDS)


words = st.sampled_from(
    ["host", "status", "path", ":", ",", '"', "-", "\\", "*", ">=", "..", "4", "4xx", " ", "a", "/", "K"]
)


@given(st.lists(words, max_size=12).map("".join) | st.text(max_size=30))
def test_any_text_is_a_filter_or_is_refused(text):
    try:
        wanted = parse(text)
    except FilterError:
        return
    assert isinstance(wanted.matches(PLAIN), bool)
    assert isinstance(wanted.matches(REQUEST), bool)


terms = st.sampled_from([
    "host:*.com", "host:shop.*", "status:>=400", "status:2xx", "path:/a*", "method:POST", "uid:1000", "port:443",
    "decision:deny", "reason:rule,default", "up:>1K", "error:*", "example", "is:request", "address:192.0.2.0/25",
])  # fmt: skip
some_records = st.builds(
    lambda is_flow, host, status, decision, port: records.told(
        records.flow(host=host, port=port, decision=Decision(decision), reason=Reason.DEFAULT, protocol=Protocol.TLS)
        if is_flow
        else records.request(host=host, status=status, port=port)
    ),
    st.booleans(),
    st.sampled_from(["a.example.com", "shop.example", None]),
    st.sampled_from([200, 404, 500, None]),
    st.sampled_from([*Decision]),
    st.sampled_from([80, 443]),
)


@given(terms, terms, some_records)
def test_terms_are_all_to_hold_and_a_minus_turns_one_round(one, other, told):
    first, second = parse(one).matches(told), parse(other).matches(told)
    assert parse(f"{one} {other}").matches(told) == (first and second)
    assert parse(f"-{one}").matches(told) == (not first)
    assert Filter().matches(told)


@given(st.lists(st.sampled_from(["200", "404", ">=500", "1xx"]), min_size=1, max_size=3), some_records)
def test_any_one_of_several_values_is_enough(values, told):
    each = [parse(f"status:{value}").matches(told) for value in values]
    assert parse(f"status:{','.join(values)}").matches(told) == any(each)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_a_quoted_text_finds_itself(text):
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert parse(f"path:{quoted}").matches(records.told(records.request(path=text)))
    assert parse(quoted).matches(records.told(records.request(path=f"/…{text}…")))
