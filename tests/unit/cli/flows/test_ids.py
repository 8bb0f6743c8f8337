"""Short names of flows and requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import records
from weir_cli.flows import ids
from weir_cli.flows.ids import Name


def test_a_flow_and_its_request():
    assert ids.name(records.flow(0x1C)) == "3f0a-1c"
    assert ids.name(records.request(2, 0x1C)) == "3f0a-1c/2"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("3f0a-1c", Name("3f0a", "1c", None)),
        ("3f0a-1c/2", Name("3f0a", "1c", 2)),
        ("7", Name("", "7", None)),
        ("3f0a-", None),
        ("", None),
        ("3f0a-1c/", None),
        ("3f0a-1c/x", None),
        ("3f0a-1c/²", None),
    ],
)
def test_what_is_a_name(text, name):
    assert ids.parse(text) == name
    assert name is None or text in (str(name), str(name)[1:])


@given(st.text("0123456789abcdef", min_size=10, max_size=10), st.integers(1, 1 << 40))
def test_a_flow_is_meant_by_its_whole_id_and_by_its_short_one(process, number):
    whole = f"{process}-{number:x}"
    for text in (whole, ids.short(whole)):
        name = ids.parse(text)
        assert name is not None
        assert name.means(whole)
        assert not name.means(f"{process}-{number + 1:x}")
    other = ids.parse(f"x{process}-{number:x}")
    assert other is not None
    assert not other.means(whole)
