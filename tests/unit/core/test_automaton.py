import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.contract.pattern import MAX_SIZE, PatternError, read_pattern, size_of
from weir_sidecar.core import automaton
from weir_sidecar.core.automaton import Automaton


def matches(pattern, text):
    return Automaton(read_pattern(pattern)).matches(text if isinstance(text, bytes) else text.encode())


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", "c", "", "/", r"\.", "[b-c/]", "(?:a|b|)"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{0}", "{1,3}", "{2,}"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
    ),
    max_leaves=5,
)


@given(PATTERNS, st.lists(st.text("abc/.1", max_size=8), min_size=1, max_size=8))
def test_says_what_a_backtracking_engine_says(pattern, texts):
    compiled = re.compile(pattern, re.DOTALL)
    ours = Automaton(read_pattern(pattern))
    for text in texts:
        assert ours.matches(text.encode()) is (compiled.fullmatch(text) is not None)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"^/v[0-9]+$", ["/v1", "/v12"], ["/v", "x/v1", "/v1/"]),
        (r"\A/a\z|^/b$", ["/a", "/b"], ["/ab"]),
        (r"(?i)/Admin/.*", ["/admin/x", "/ADMIN/"], ["/admi"]),
        (r"/(?i:A)b", ["/ab", "/Ab"], ["/aB"]),
        (r"/(?i)a(?-i)b", ["/Ab"], ["/AB"]),
        (r"/(?i)[^a]", ["/b"], ["/a", "/A"]),
        (r"/(?P<id>[[:xdigit:]]{4})/(?<n>\w)", ["/aF09/_"], ["/aF0/_", "/aG09/a"]),
        (r"/[[:^digit:]a-]", ["/x", "/-"], ["/1"]),
        (r"/[\d.]\x41\x{e4}ö", ["/1Aäö", "/.Aäö"], ["/aAäö"]),
        (r"/[]a][^]]", ["/]a", "/ab"], ["/]]"]),
        (r"/a{,3}{x", ["/a{,3}{x"], ["/aa"]),
        (r"/(ä|o)+", ["/äo"], ["/a"]),
        (r"/a|", ["/a", ""], ["/"]),
        ("/(((){500}){500}){500}(|)+", ["/"], ["/a"]),
        (r"/.", [b"/\xff", "/\n"], ["/ä"]),
    ],
)
def test_reads_the_syntax_of_re2(pattern, yes, no):
    assert all(matches(pattern, text) for text in yes)
    assert not any(matches(pattern, text) for text in no)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(", "its end: a parenthesis is missing"),
        (")", "no parenthesis is open"),
        ("[a", "a bracket is missing"),
        ("[b-a]", "smaller one first"),
        ("[ä]", "brackets hold ASCII"),
        ("[[:nothing:]]", "allowed: one of alnum, alpha"),
        ("*a", "at character 1, '*': there is nothing to repeat"),
        ("a**", "a repetition of a repetition"),
        ("a*+", "a repetition of a repetition"),
        ("a{501}", "at most 500 times"),
        ("a{3,2}", "the smaller number first"),
        (r"(a)\1", "no backreferences"),
        ("(?=a)", "no looking around"),
        ("(?<!a)b", "no looking around"),
        (r"\bword", "is not known here"),
        ("a^b", "may stand only where the pattern begins and ends"),
        ("(a$)b", "may stand only where the pattern begins and ends"),
        (r"\x4", "hexadecimal"),
        ("a\\", "is not known here"),
        ("(" * 50 + ")" * 50, "40 parentheses within each other"),
        ("(a{50}){50}", "2500 bytes, each repetition counted; allowed: 500"),
        ("a" * 2001, "2001 characters"),
    ],
)  # fmt: skip
def test_what_it_cannot_say_is_told(pattern, says):
    with pytest.raises(PatternError) as raised:
        read_pattern(pattern)
    assert says in str(raised.value)


@given(st.text("ab(){}[]|*+?^$\\.-,:<>P=!ix012ä", max_size=12))
def test_whatever_is_written_is_read_or_refused(pattern):
    try:
        read = read_pattern(pattern)
    except PatternError:
        return
    assert size_of(read) <= MAX_SIZE
    Automaton(read).matches(b"ab12" * 10)


@pytest.mark.parametrize("pattern", ["/(a+)+", "/(a|a)*", "/(a*)*b", "/.*.*.*.*=.*"])
def test_every_byte_is_looked_at_once_whatever_the_pattern(pattern, monkeypatch):
    """Where an engine that goes back would take longer than the world has lasted."""
    found = []
    find = Automaton._find
    monkeypatch.setattr(Automaton, "_find", lambda self, live: found.append(live) or find(self, live))
    assert not matches(pattern, b"/" + b"a" * 60000 + b"!")
    assert len(found) < 10


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(automaton, "_MAX_REMEMBERED", 4)
    ours = Automaton(read_pattern("(a|b)*a[ab]{6}"))
    assert ours.matches(b"abbaabab" * 20 + b"ababbbb")
    assert len(ours._after) <= 4
    assert not ours.matches(b"abbaabab" * 20 + b"bbbbbbb")
