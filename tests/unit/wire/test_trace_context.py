"""W3C Trace Context: what is a valid `traceparent`. The cases are those of the specification's own test suite."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.wire.trace_context import RANDOM, SAMPLED, TraceParent, find, parse

TRACE = "12345678901234567890123456789012"
SPAN = "1234567890123456"
MEANT = TraceParent(TRACE, SPAN, SAMPLED)
NAME = b"traceparent"

VALID = {
    "version_0x00": f"00-{TRACE}-{SPAN}-01",
    "version_0xcc": f"cc-{TRACE}-{SPAN}-01",
    "version_0xcc_what_the_future_will_be_like": f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
    "version_0xfe_an_empty_future": f"fe-{TRACE}-{SPAN}-01-",
    "flags_of_the_future_are_not_ours": f"01-{TRACE}-{SPAN}-ff",
    "ows_before": f" \t00-{TRACE}-{SPAN}-01",
    "ows_behind": f"00-{TRACE}-{SPAN}-01\t ",
}
INVALID = {
    "version_0x00_ends_with_a_dot": f"00-{TRACE}-{SPAN}-01.",
    "version_0x00_what_the_future_will_be_like": f"00-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
    "version_0xcc_not_a_hyphen": f"cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like",
    "version_0xff": f"ff-{TRACE}-{SPAN}-01",
    "version_illegal_first": f".0-{TRACE}-{SPAN}-01",
    "version_illegal_second": f"0.-{TRACE}-{SPAN}-01",
    "version_upper_case": f"CC-{TRACE}-{SPAN}-01",
    "version_too_long": f"000-{TRACE}-{SPAN}-01",
    "version_far_too_long": f"0000-{TRACE}-{SPAN}-01",
    "version_too_short": f"0-{TRACE}-{SPAN}-01",
    "trace_id_all_zero": f"00-{'0' * 32}-{SPAN}-01",
    "trace_id_all_zero_of_the_future": f"cc-{'0' * 32}-{SPAN}-01",
    "trace_id_illegal_first": f"00-.{TRACE[1:]}-{SPAN}-01",
    "trace_id_illegal_last": f"00-{TRACE[:-1]}.-{SPAN}-01",
    "trace_id_upper_case": f"00-{TRACE[:-1]}A-{SPAN}-01",
    "trace_id_too_long": f"00-{TRACE}3-{SPAN}-01",
    "trace_id_too_short": f"00-{TRACE[:-1]}-{SPAN}-01",
    "parent_id_all_zero": f"00-{TRACE}-{'0' * 16}-01",
    "parent_id_illegal_first": f"00-{TRACE}-.{SPAN[1:]}-01",
    "parent_id_illegal_last": f"00-{TRACE}-{SPAN[:-1]}.-01",
    "parent_id_upper_case": f"00-{TRACE}-{SPAN[:-1]}F-01",
    "parent_id_too_long": f"00-{TRACE}-{SPAN}7-01",
    "parent_id_too_short": f"00-{TRACE}-{SPAN[:-1]}-01",
    "trace_flags_illegal_first": f"00-{TRACE}-{SPAN}-.0",
    "trace_flags_illegal_last": f"00-{TRACE}-{SPAN}-0.",
    "trace_flags_upper_case": f"00-{TRACE}-{SPAN}-0A",
    "trace_flags_too_long": f"00-{TRACE}-{SPAN}-001",
    "trace_flags_too_short": f"00-{TRACE}-{SPAN}-1",
    "no_flags": f"00-{TRACE}-{SPAN}",
    "a_line_end": f"00-{TRACE}-{SPAN}-01\n",
    "a_digit_of_another_script": f"00-{TRACE[:-1]}\u0663-{SPAN}-01",
    "two_in_one_field": f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
    "empty": "",
}


@pytest.mark.parametrize("value", VALID.values(), ids=VALID)
def test_valid(value):
    assert parse(value.encode()) == MEANT


@pytest.mark.parametrize("value", INVALID.values(), ids=INVALID)
def test_invalid(value):
    assert parse(value.encode()) is None


@pytest.mark.parametrize("name", [b"traceparent", b"TraceParent", b"TRACEPARENT", b"TrAcEpArEnT"])
def test_the_name_is_known_in_any_case(name):
    assert find([(b"Host", b"a"), (name, VALID["version_0x00"].encode())]) == MEANT


@pytest.mark.parametrize("name", [b"trace-parent", b"trace.parent", b"trace_parent", b"traceparents", b"tracestate"])
def test_other_names_are_not_it(name):
    assert find([(name, VALID["version_0x00"].encode())]) is None


def test_two_fields_are_none_even_if_they_agree():
    field = (NAME, VALID["version_0x00"].encode())
    assert find([field, field]) is None
    assert find([field, (NAME, b"broken")]) is None


def test_what_goes_on_is_version_00_and_has_no_unknown_flags():
    assert TraceParent(TRACE, SPAN, 0xFF).value() == f"00-{TRACE}-{SPAN}-03".encode()
    assert parse(VALID["version_0xcc_what_the_future_will_be_like"].encode()).value() == VALID["version_0x00"].encode()


@given(
    st.builds(
        TraceParent,
        st.binary(min_size=16, max_size=16).filter(any).map(bytes.hex),
        st.binary(min_size=8, max_size=8).filter(any).map(bytes.hex),
        st.sampled_from((0, SAMPLED, RANDOM, SAMPLED | RANDOM)),
    )
)
def test_what_is_written_is_read_back(one):
    assert parse(one.value()) == one


@given(
    st.from_regex(r"\A[0-9a-fA-F.]{1,3}-[0-9a-f]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}(-?[a-z]?)\Z").map(str.encode)
    | st.binary(max_size=80)
)
def test_what_is_read_has_the_form_of_ids(value):
    found = parse(value)
    if found is not None:
        assert re.fullmatch("[0-9a-f]{32}", found.trace_id)
        assert re.fullmatch("[0-9a-f]{16}", found.parent_id)
        assert parse(found.value()).trace_id == found.trace_id in value.decode()
