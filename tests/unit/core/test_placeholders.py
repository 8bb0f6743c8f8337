"""A placeholder is found in whatever pieces a body comes, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.core.placeholders import BodyWatch

SHORT, LONG = b"PLACEHOLDER", b"A-LONGER-PLACEHOLDER"


def pieces(data, cuts):
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return zip([0, *ends], ends, strict=False)


@given(st.binary(max_size=40), st.sampled_from((SHORT, LONG)), st.binary(max_size=40), st.lists(st.integers(0, 200)))
def test_it_is_found_across_all_pieces(before, placeholder, after, cuts):
    watch = BodyWatch((SHORT, LONG))
    body = before + placeholder + after
    found = [watch.finds(body, start, end) for start, end in pieces(body, cuts)]
    assert any(found)


@given(st.text("PLACEHOLDERA-", max_size=80).map(str.encode), st.lists(st.integers(0, 200)))
def test_nothing_else_is_found(body, cuts):
    watch = BodyWatch((SHORT, LONG))
    found = [watch.finds(body, start, end) for start, end in pieces(body, cuts)]
    assert any(found) is (SHORT in body or LONG in body)


def test_what_is_remembered_is_no_longer_than_a_placeholder():
    watch = BodyWatch((SHORT, LONG))
    watch.finds(b"x" * 100000, 0, 100000)
    watch.finds(b"y", 0, 1)
    assert len(watch._last) < len(LONG)


@pytest.mark.parametrize(
    ("fields", "found"),
    [([(b"x", b"a PLACEHOLDER")], True), ([(b"x", b"PLACE"), (b"HOLDER", b"y")], False), ([], False)],
)
def test_fields_are_looked_at_each(fields, found):
    assert BodyWatch((SHORT,)).found(fields) is found
