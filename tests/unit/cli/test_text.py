"""Text for terminals: how wide it is, cut and filled to a width, in pieces of a width."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_cli.text import fit, printable, width, wrapped

texts = st.text().map(printable)


@pytest.mark.parametrize(
    ("text", "columns"), [("", 0), ("abc", 3), ("bücher", 6), ("日本", 4), ("e\N{COMBINING ACUTE ACCENT}", 1)]
)
def test_how_wide_a_text_is(text, columns):
    assert width(text) == columns


@pytest.mark.parametrize(
    ("text", "columns", "fitted"),
    [
        ("ab", 4, "ab  "),
        ("abcd", 4, "abcd"),
        ("abcde", 4, "abc…"),
        ("日本語", 4, "日… "),
        ("ab", 1, "…"),
        ("ab", 0, ""),
    ],
)
def test_a_text_is_filled_or_cut(text, columns, fitted):
    assert fit(text, columns) == fitted


def test_numbers_are_filled_at_their_left():
    assert fit("7", 3, right=True) == "  7"


@given(texts, st.integers(0, 40), st.booleans())
def test_a_fitted_text_is_exactly_as_wide(text, columns, right):
    assert width(fit(text, columns, right=right)) == columns


@given(texts, st.integers(9, 40))
def test_pieces_are_no_wider_and_are_the_text(text, columns):
    first, *others = wrapped(text, columns)
    assert all(width(piece) <= columns for piece in (first, *others))
    assert all(piece.startswith("    ") for piece in others)
    assert first + "".join(piece[4:] for piece in others) == text
