"""A person's word on a cache: what it does, and what it says when it cannot."""

import pytest

from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.trust import Word
from weir_sidecar.core.trust_cache import Bypass, InterceptNow, TrustCache
from weir_sidecar.core.trust_change import TrustChange


def test_each_word_does_what_it_says():
    cache = TrustCache(FailOpen())
    assert TrustChange(Word.PIN, "a.example").apply(cache, 1.0) is None
    assert isinstance(cache.admit("a.example", 5, None, 1.0), Bypass)
    assert TrustChange(Word.APPROVE, "a.example").apply(cache, 2.0) is None
    assert isinstance(cache.admit("a.example", 5, None, 2.0), InterceptNow)
    assert TrustChange(Word.FORGET, "a.example").apply(cache, 3.0) is None
    assert cache.entries(3.0) == []
    assert TrustChange(Word.FORGET, "a.example").apply(cache, 3.0) == "nothing is known of a.example"


def test_a_full_cache_says_so():
    cache = TrustCache(FailOpen(max_entries=16))
    for number in range(16):
        assert TrustChange(Word.PIN, f"h{number}").apply(cache, 1.0) is None
    assert "16 entries" in TrustChange(Word.APPROVE, "one.more").apply(cache, 1.0)


@pytest.mark.parametrize(
    ("uid", "ja4", "words"),
    [(None, None, "h"), (5, None, "h (uid 5)"), (None, "t", "h (JA4 t)"), (0, "t", "h (uid 0, JA4 t)")],
)
def test_what_it_is_about(uid, ja4, words):
    assert TrustChange(Word.PIN, "h", uid, ja4).subject == words
