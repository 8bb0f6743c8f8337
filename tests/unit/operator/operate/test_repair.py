from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samples.worlds import EARLY, pod, policy, world
from weir_operator.cluster.facts import Workload
from weir_operator.operate.pods import MissedReason, tally
from weir_operator.operate.repair import (
    DOUBT,
    GAP,
    MISSED_LABEL,
    SETTLED,
    Choice,
    Evictions,
    Memory,
    Mode,
    Slip,
    relabelled,
    slips,
)

NOW = datetime(2027, 2, 3, 12, tzinfo=UTC)
WEB = Workload("Deployment", "web")
PLUGIN, WEBHOOK = MissedReason.PLUGIN_MISSED, MissedReason.WEBHOOK_MISSED
DELETE = Choice({PLUGIN: Mode.DELETE, WEBHOOK: Mode.DELETE})


def at(seconds=0):
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def of_web(name, **more):
    return msgspec.structs.replace(pod(name, **more), workload=WEB)


def slipped(*pods, reason=WEBHOOK):
    return {one.uid: Slip(one, reason) for one in pods}


def names(pods):
    return [one.name for one in pods]


def test_pods_that_slipped_are_those_that_nobody_is_to_blame_for():
    pods = [pod("webhook"), pod("opted-out", opted_out=True), pod("older", created=EARLY), pod("ended", finished=True)]
    pods += [pod("fine", captured=True), pod("plugin", captured=True, refused=True)]
    seen = world(policy(), pods=pods)
    found = slips(seen, tally(seen), DELETE)
    assert {(one.pod.name, one.reason) for one in found.values()} == {("webhook", WEBHOOK), ("plugin", PLUGIN)}


class TestLabels:
    CHOICE = Choice({PLUGIN: Mode.LABEL, WEBHOOK: Mode.NONE})

    def test_only_what_is_wrong_is_changed(self):
        right, wrong, over, ended = (pod(name) for name in ("right", "wrong", "over", "ended"))
        labelled = {MISSED_LABEL: "PluginMissed"}
        right, over = (msgspec.structs.replace(one, labels=labelled) for one in (right, over))
        ended = msgspec.structs.replace(ended, labels=labelled, finished=True)
        other = pod("other")
        known = slipped(right, wrong, reason=PLUGIN) | slipped(other)
        pods = (right, wrong, over, ended, other)
        assert list(relabelled(pods, known, self.CHOICE)) == [(wrong, "PluginMissed"), (over, None)]

    def test_without_the_choice_nothing_is_touched(self):
        assert list(relabelled([pod("a", labels={MISSED_LABEL: "x"})], slipped(pod("a")), DELETE)) == []


class TestMemory:
    def test_each_is_new_once_and_recovers_when_it_has_been_fine_for_a_while(self):
        memory, one = Memory(), pod("a", captured=True)
        found = slipped(one, reason=PLUGIN)
        assert memory.see(found, [one], NOW) == ([found[one.uid]], [])
        assert memory.see(found, [one], NOW + GAP) == ([], [])
        # Its sidecar is silent for a moment: that proves nothing.
        assert memory.see({}, [one], NOW + GAP + SETTLED / 2) == ([], [])
        assert memory.known == found
        assert memory.see({}, [one], NOW + GAP + SETTLED) == ([], [found[one.uid]])
        assert memory.known == {}

    def test_a_pod_that_is_gone_has_not_recovered(self):
        memory, one = Memory(), pod("a", captured=True)
        memory.see(slipped(one), [one], NOW)
        assert memory.see({}, [], NOW) == ([], [])
        assert memory.known == {}

    def test_another_reason_is_news(self):
        memory, one = Memory(), pod("a")
        memory.see(slipped(one), [one], NOW)
        other = slipped(one, reason=PLUGIN)
        assert memory.see(other, [one], NOW)[0] == list(other.values())


class TestEvictions:
    def settled(self, found, choice=DELETE):
        evictions = Evictions(choice)
        assert evictions.choose(found, [], NOW - SETTLED) == []
        return evictions

    def test_one_of_a_workload_the_youngest_first(self):
        pods = [of_web("a", created=at(-90)), of_web("b", created=at(-60)), of_web("c", created=at(-80))]
        found = slipped(*pods)
        assert names(self.settled(found).choose(found, pods, NOW)) == ["b"]

    def test_what_nothing_makes_anew_stays_unless_it_is_said(self):
        bare = pod("bare")
        found = slipped(bare)
        assert self.settled(found).choose(found, [bare], NOW) == []
        anyway = msgspec.structs.replace(DELETE, bare_pods=True)
        assert self.settled(found, anyway).choose(found, [bare], NOW) == [bare]

    @pytest.mark.parametrize("mode", [Mode.NONE, Mode.LABEL, Mode.IN_PLACE])
    def test_only_where_it_is_chosen(self, mode):
        one = of_web("a")
        found = slipped(one, reason=PLUGIN)
        assert self.settled(found, Choice({PLUGIN: mode})).choose(found, [one], NOW) == []

    def test_the_next_when_the_successor_is_captured(self):
        old, young = of_web("old", created=at(-90)), of_web("young", created=at(-60))
        evictions = self.settled(slipped(old, young))
        evictions.evicted(young, NOW)
        left = slipped(old)
        successor = of_web("successor", created=at(1), captured=True)
        assert evictions.choose(left, [old, successor], NOW + GAP) == []  # it does not run yet
        serving = msgspec.structs.replace(successor, running=True)
        assert evictions.choose(left, [old, serving], NOW + GAP) == [old]

    def test_later_and_later_while_successors_are_no_better(self):
        first = of_web("a0", created=at(-60))
        evictions = self.settled(slipped(first))
        evictions.evicted(first, NOW)
        now = NOW
        for number, wait in enumerate((DOUBT, 2 * DOUBT, 4 * DOUBT), 1):
            successor = of_web(f"a{number}", created=now.strftime("%Y-%m-%dT%H:%M:%SZ"), captured=True)
            found = slipped(successor, reason=PLUGIN)
            evictions.choose(found, [successor], now)
            assert evictions.choose(found, [successor], now + wait - timedelta(seconds=1)) == []
            assert evictions.choose(found, [successor], now + wait) == [successor]
            now += wait
            evictions.evicted(successor, now)

    def test_a_workload_that_needs_no_successor_is_not_waited_for_for_ever(self):
        old, young = of_web("old", created=at(-90)), of_web("young", created=at(-60))
        evictions = self.settled(slipped(old, young))
        evictions.evicted(young, NOW)
        assert evictions.choose(slipped(old), [old], NOW + DOUBT) == [old]

    @given(st.integers(1, 5), st.integers(1, 12))
    def test_never_more_a_minute_than_is_allowed(self, per_minute, workloads):
        pods = [msgspec.structs.replace(pod(f"p{n}"), workload=Workload("Job", f"j{n}")) for n in range(workloads)]
        found = slipped(*pods)
        evictions = self.settled(found, msgspec.structs.replace(DELETE, per_minute=per_minute))
        evicted = []
        for second in range(0, 60, 5):
            now = NOW + timedelta(seconds=second)
            for one in evictions.choose(found, pods, now):
                evictions.evicted(one, now)
                evicted.append(one)
                found.pop(one.uid)
        assert len(evicted) == min(per_minute, workloads)
