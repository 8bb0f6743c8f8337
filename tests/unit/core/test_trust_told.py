"""What others are told of a trust cache, and when."""

import msgspec
import pytest

from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.stream import MAX_LINE, Trust
from weir_sidecar.contract.trust import State, Told
from weir_sidecar.core.trust_entry import Entry
from weir_sidecar.core.trust_told import Teller, batches, heard, told

BYPASSED = Entry("a.test", 1, "j", State.BYPASSED, Reason.CLIENT_DISTRUSTS_CA, 48, 2, 1, expires_at=9.0, bypasses=1)


def states(entries: list[Told]) -> list[tuple[str, State]]:
    return [(entry.host, entry.state) for entry in entries]


def moved(entry: Entry, state: State, expires_at: float | None = None) -> Entry:
    return msgspec.structs.replace(entry, state=state, expires_at=expires_at)


def test_an_entry_is_told_whole() -> None:
    assert told(BYPASSED) == Told(
        "a.test", State.BYPASSED, 1, "j", Reason.CLIENT_DISTRUSTS_CA, 48, 2, 1, bypasses=1, expires_at=9.0
    )


def test_what_was_told_is_a_bypass_to_who_hears_it() -> None:
    again = heard(told(BYPASSED))
    assert again is not None
    assert told(again) == told(BYPASSED)


@pytest.mark.parametrize("state", [state for state in State if state is not State.BYPASSED])
def test_nothing_follows_from_other_states(state: State) -> None:
    assert heard(Told("a.test", state, expires_at=5.0)) is None


def test_first_all_that_is_worth_telling() -> None:
    entries = [
        BYPASSED,
        Entry("b.test", state=State.TRUSTED, successes=5),
        Entry("c.test", state=State.TRUSTED, failures=1, successes=5),
        Entry("d.test", state=State.FAILING, failures=1),
        Entry("e.test", state=State.PINNED),
        Entry("f.test"),
    ]
    assert [entry.host for entry in Teller().everything(entries)] == ["a.test", "c.test", "d.test", "e.test"]


def test_then_changes_of_state_alone() -> None:
    teller = Teller()
    teller.everything([BYPASSED])
    assert teller.changes([msgspec.structs.replace(BYPASSED, last_seen=5.0, successes=7)]) == []
    assert states(teller.changes([moved(BYPASSED, State.PROBATION)])) == [("a.test", State.PROBATION)]
    assert states(teller.changes([moved(BYPASSED, State.BYPASSED, 90.0)])) == [("a.test", State.BYPASSED)]
    assert states(teller.changes([moved(BYPASSED, State.BYPASSED, 95.0)])) == [("a.test", State.BYPASSED)]
    assert states(teller.changes([moved(BYPASSED, State.TRUSTED)])) == [("a.test", State.TRUSTED)]


def test_of_two_with_one_name_the_one_that_counts_is_told() -> None:
    entries = [
        Entry("a.test", state=State.PINNED),
        Entry("a.test", state=State.BYPASSED, reason=Reason.CLIENT_CERTIFICATE_REQUESTED, expires_at=9.0),
    ]
    teller = Teller()
    assert states(teller.everything(entries)) == [("a.test", State.PINNED)]
    assert teller.changes(entries) == []
    assert states(teller.changes(entries[1:])) == [("a.test", State.BYPASSED)]


def test_what_is_gone_is_told_anew_when_it_is_back() -> None:
    teller = Teller()
    teller.everything([BYPASSED])
    assert teller.changes([]) == []
    assert states(teller.changes([BYPASSED])) == [("a.test", State.BYPASSED)]


def test_who_connects_again_is_told_everything_again() -> None:
    teller = Teller()
    teller.everything([BYPASSED])
    assert len(teller.everything([BYPASSED])) == 1


def test_portions_fit_into_a_message() -> None:
    entries = [msgspec.structs.replace(told(BYPASSED), host="h" * 253, ja4="j" * 64)] * 4096
    portions = list(batches(entries))
    assert sum(map(len, portions)) == 4096
    assert max(len(msgspec.json.encode(Trust(portion))) for portion in portions) < MAX_LINE
    assert list(batches([])) == [()]
