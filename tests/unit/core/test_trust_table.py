"""The state table, exhaustively: every state with every event, written down a second time."""

from itertools import product

import pytest

from weir_sidecar.contract.trust import State
from weir_sidecar.core.trust_table import PERSONAL, TRANSITIONS, Event, after

LEARNED = ["trusted", "suspected", "distrusted", "nothing", "expired", "heard"]
EXPECTED = """
unknown    trusted  failing   bypassed  unknown   unknown    bypassed
trusted    trusted  trusted   bypassed  trusted   trusted    trusted
failing    trusted  failing   bypassed  failing   failing    bypassed
bypassed   trusted  bypassed  bypassed  bypassed  probation  bypassed
probation  trusted  bypassed  bypassed  probation probation  probation
pinned     pinned   pinned    pinned    pinned    pinned     pinned
approved   approved approved  approved  approved  approved   approved
"""
CELLS = [
    (State(state), Event(event), State(follows))
    for state, *row in (line.split() for line in EXPECTED.strip().splitlines())
    for event, follows in zip(LEARNED, row, strict=True)
] + [
    (state, event, follows)
    for state in State
    for event, follows in (
        (Event.PIN, State.PINNED),
        (Event.APPROVE, State.APPROVED),
        (Event.FORGET, State.UNKNOWN),
    )
]


def test_every_pair_is_listed_once() -> None:
    assert sorted((state, event) for state, event, _ in CELLS) == sorted(product(State, Event))
    assert all(set(row) == set(Event) for row in TRANSITIONS.values())


@pytest.mark.parametrize(("state", "event", "follows"), CELLS)
def test_transition(state: State, event: Event, follows: State) -> None:
    assert after(state, event) is follows


def test_only_a_person_enters_and_leaves_a_personal_state() -> None:
    by_person = {Event.PIN, Event.APPROVE, Event.FORGET}
    for state, event in product(State, Event):
        if event not in by_person:
            assert (state in PERSONAL) == (after(state, event) in PERSONAL)


def test_bypass_needs_evidence() -> None:
    enter = {
        (state, event)
        for state, event in product(State, Event)
        if after(state, event) is State.BYPASSED and state is not State.BYPASSED
    }
    assert {event for _, event in enter} == {Event.DISTRUSTED, Event.SUSPECTED, Event.HEARD}
    assert [state for state, event in enter if event is Event.SUSPECTED] == [State.PROBATION]


def test_hearsay_moves_only_what_is_not_settled() -> None:
    assert [state for state in State if after(state, Event.HEARD) is not state] == [State.UNKNOWN, State.FAILING]
