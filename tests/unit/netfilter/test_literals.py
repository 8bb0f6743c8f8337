"""Merging ranges: the result covers the same numbers, sorted, with gaps between."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.netfilter.literals import merge

RANGES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair))), max_size=8
)


@given(RANGES)
def test_merge_keeps_the_numbers_and_leaves_gaps(ranges: list[tuple[int, int]]) -> None:
    merged = merge(ranges)
    assert {n for a, b in merged for n in range(a, b + 1)} == {n for a, b in ranges for n in range(a, b + 1)}
    assert all(a[1] + 1 < b[0] for a, b in pairwise(merged))
