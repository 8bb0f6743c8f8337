"""What trust is learned about, as text; the other grammars are tested where policies are read."""

import pytest

from weir_operator import grammar


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("*", "*"),
        ("API.example.com.", "api.example.com"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8::7", "2001:db8::7"),
    ],
)
def test_a_subject_is_one_host_an_address_or_every_host(text, read):
    assert grammar.subject_host(text) == read


@pytest.mark.parametrize("text", ["*.example.com", "https://example.com", "10.0.0.0/8", ""])
def test_a_pattern_is_no_subject(text):
    with pytest.raises(grammar.UnreadableError):
        grammar.subject_host(text)
