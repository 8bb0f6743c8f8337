"""The cache as bytes: what is carried over a restart, and what cannot be read."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.trust import State
from weir_sidecar.core.tls_outcome import Outcome
from weir_sidecar.core.trust_cache import Bypass, InterceptNow, TrustCache
from weir_sidecar.core.trust_dump import Dump, TrustDumpError, decode, encode

SETTINGS = FailOpen()


def filled() -> TrustCache:
    cache = TrustCache(SETTINGS, "w", authority="ca-1")
    for host, outcome in (("good.test", Outcome.TRUSTED), ("bad.test", Outcome.DISTRUSTED)):
        admission = cache.admit(host, 1000, "j", 0.0)
        assert isinstance(admission, InterceptNow)
        cache.report(admission.ticket, outcome, 48 if outcome is Outcome.DISTRUSTED else None, 0.0)
    cache.pin("pinned.test", None, None, 0.0)
    cache.approve("approved.test", 0, None, 0.0)
    cache.remember_client_certificate("mtls.test", 0.0)
    return cache


def test_a_restart_keeps_everything() -> None:
    before = filled()
    after = TrustCache.load(before.dump(1.0), SETTINGS)
    assert after.entries(1.0) == before.entries(1.0)
    assert after.dump(1.0) == before.dump(1.0)
    assert after.admit("bad.test", 1000, "j", 1.0) == Bypass(Reason.CLIENT_DISTRUSTS_CA)
    assert after.admit("pinned.test", 1000, "j", 1.0) == Bypass(Reason.PINNED)
    assert after.admit("mtls.test", 1000, "j", 1.0) == Bypass(Reason.CLIENT_CERTIFICATE_REQUESTED)


def test_another_authority_has_to_earn_trust_anew() -> None:
    before = filled()
    after = TrustCache.load(before.dump(1.0), SETTINGS, authority="ca-2")
    assert {e.host for e in before.entries(1.0)} - {e.host for e in after.entries(1.0)} == {"good.test", "*"}
    assert all(entry.state is not State.TRUSTED for entry in after.entries(1.0))


def test_a_smaller_cache_takes_the_latest_and_all_words() -> None:
    cache = TrustCache(FailOpen(max_entries=64))
    for number in range(16):
        cache.pin(f"{number}.test", None, None, 0.0)
        cache.remember_client_certificate(f"m{number}.test", 0.0)
    small = TrustCache.load(cache.dump(0.0), FailOpen(max_entries=16))
    assert {entry.state for entry in small.entries(0.0)} == {State.PINNED}
    assert len(small.entries(0.0)) == 16


GOOD = filled().dump(0.0)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (b"\x00\xff", "malformed"),
        (b"[]", "Expected `object`, got `array`"),
        (b"[" * 100_000, "."),
        (GOOD[:-3], "truncated"),
        (GOOD.replace(b"v1alpha1", b"v9"), "Invalid enum value 'weir.dev/trust/v9'"),
        (GOOD.replace(b'"trusted"', b'"nonsense"'), "Invalid enum value 'nonsense'"),
        (GOOD.replace(b'"uid":1000', b'"uid":-1'), ">= 0"),
        (GOOD.replace(b'"first_seen":0.0', b'"first_seen":"x"', 1), "float"),
        (GOOD.replace(b'"first_seen":0.0', b'"first_seen":1e999', 1), "."),
        (GOOD.replace(b'"suspicions"', b'"suspicion"', 1), "unknown field"),
        (GOOD.replace(b'"expires_at":3600.0', b'"expires_at":null', 1), "a bypass has an end"),
        (GOOD.replace(b'"state":"pinned"', b'"state":"approved"', 1), "reason is pinned; it must be approved"),
    ],
)
def test_what_cannot_be_read_is_a_declared_error(data: bytes, says: str) -> None:
    with pytest.raises(TrustDumpError, match=says):
        TrustCache.load(data, SETTINGS)


@given(st.data())
def test_a_damaged_dump_is_read_or_refused_and_never_crashes(data: st.DataObject) -> None:
    damaged = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=3))
    try:
        cache = TrustCache.load(bytes(damaged), SETTINGS)
    except TrustDumpError:
        return
    assert TrustCache.load(cache.dump(0.0), SETTINGS).entries(0.0) == cache.entries(0.0)


@given(st.builds(Dump, workload=st.text(), authority=st.text()))
def test_round_trip(dump: Dump) -> None:
    assert decode(encode(dump)) == dump
    assert msgspec.json.decode(encode(dump))["version"] == "weir.dev/trust/v1alpha1"
