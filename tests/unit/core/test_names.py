from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.core import names
from weir_sidecar.core.names import LearnedNames


def test_an_answer_names_its_addresses_until_its_ttl_ends() -> None:
    learned = LearnedNames()
    learned.learn("a.test", ["192.0.2.1", "2001:db8::1"], 1000, now=5)
    for address in ("192.0.2.1", "2001:db8::1"):
        assert learned.name_of(address, 1004.9) == "a.test"
        assert learned.gave("a.test", address, 1004.9) is True
        assert learned.name_of(address, 1005) is None
        assert learned.gave("a.test", address, 1005) is None


def test_another_address_was_not_given_and_an_unknown_name_says_nothing() -> None:
    learned = LearnedNames()
    learned.learn("a.test", ["192.0.2.1"], 1000, now=0)
    assert learned.gave("a.test", "192.0.2.2", 1) is False
    assert learned.gave("b.test", "192.0.2.1", 1) is None


def test_the_last_name_told_for_an_address_is_its_name_and_both_names_had_it() -> None:
    learned = LearnedNames()
    learned.learn("a.test", ["192.0.2.1"], 1000, now=0)
    learned.learn("b.test", ["192.0.2.1"], 1000, now=1)
    assert learned.name_of("192.0.2.1", 2) == "b.test"
    assert learned.gave("a.test", "192.0.2.1", 2) is True


def test_ttls_are_clamped_both_ways() -> None:
    learned = LearnedNames()
    learned.learn("short.test", ["192.0.2.1"], 0, now=0)
    learned.learn("long.test", ["192.0.2.2"], 10 * names.MAX_TTL, now=0)
    assert learned.name_of("192.0.2.1", names.MIN_TTL - 1) == "short.test"
    assert learned.name_of("192.0.2.1", names.MIN_TTL) is None
    assert learned.name_of("192.0.2.2", names.MAX_TTL - 1) == "long.test"
    assert learned.name_of("192.0.2.2", names.MAX_TTL) is None


def test_one_address_may_expire_before_another_of_the_same_name() -> None:
    learned = LearnedNames()
    learned.learn("a.test", ["192.0.2.1"], 1000, now=0)
    learned.learn("a.test", ["192.0.2.2"], 2000, now=0)
    assert learned.gave("a.test", "192.0.2.1", 1500) is False
    assert learned.gave("a.test", "192.0.2.2", 1500) is True


def test_memory_is_bounded_and_the_newest_stay() -> None:
    learned = LearnedNames()
    for n in range(names.MAX_NAMES + 10):
        learned.learn(f"{n}.test", [f"a{n}"], 1000, now=0)
    learned.learn("many.test", [f"b{n}" for n in range(3 * names.MAX_ADDRESSES)], 1000, now=0)
    assert learned.gave("0.test", "a0", 1) is None
    assert learned.gave(f"{names.MAX_NAMES + 9}.test", f"a{names.MAX_NAMES + 9}", 1) is True
    assert learned.gave("many.test", f"b{3 * names.MAX_ADDRESSES - 1}", 1) is True
    assert learned.gave("many.test", "b0", 1) is False
    assert len(learned._addresses) <= names.MAX_NAMES
    assert len(learned._names) <= names.MAX_ADDRESSES
    assert all(len(given) <= names.ADDRESSES_PER_NAME for given in learned._addresses.values())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(300, 3000)), max_size=20))
def test_agrees_with_a_plain_list_of_what_was_told(told: list[tuple[str, str, int]]) -> None:
    learned, when = LearnedNames(), 1000
    for host, address, ttl in told:
        learned.learn(host, [address], ttl, now=0)
    last = {(host, address): ttl for host, address, ttl in told}
    for host in "abc":
        alive = {address for (name, address), ttl in last.items() if name == host and ttl > when}
        for address in "xyz":
            assert learned.gave(host, address, when) is ((address in alive) if alive else None)
