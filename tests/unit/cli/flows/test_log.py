"""The log of the last records: bounded, filtered, and with what a flow's record says known to its requests."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lab import records
from weir_cli.flows.filters import parse
from weir_cli.flows.log import Log
from weir_sidecar.contract.flow import Client, FlowRecord


def told(*of):
    return [records.told(one) for one in of]


def filled(*of, **limits):
    log = Log(**limits)
    for one in told(*of):
        log.add(one)
    return log


def test_the_oldest_go_when_there_are_too_many():
    log = filled(*map(records.flow, range(1, 6)), most=3)
    assert len(log) == 3
    assert [log[serial].record.id for serial in log.shown] == [f"3f0a9c21d7-{number}" for number in (3, 4, 5)]
    assert log.requests("3f0a9c21d7-1") == []


def test_the_oldest_go_when_they_are_too_long_but_the_last_stays():
    size = len(records.line(records.flow(1)))
    assert len(filled(*map(records.flow, range(1, 6)), most_bytes=2 * size)) == 2
    assert len(filled(*map(records.flow, range(1, 6)), most_bytes=1)) == 1


def test_a_flow_tells_its_requests_when_it_ends():
    log = filled(records.request(1, 1), records.request(2, 1), records.request(1, 2))
    log.choose(parse("uid:1000"))
    assert list(log.shown) == []
    log.add(records.told(records.flow(1)))
    assert list(log.shown) == [0, 1, 3]
    log.choose(parse("-uid:1000"))
    assert list(log.shown) == [2]
    log.add(records.told(records.flow(2)))
    assert list(log.shown) == []
    assert [one.record.number for one in log.requests("3f0a9c21d7-1")] == [1, 2]
    assert all(one.flow == records.flow(1) for one in log.requests("3f0a9c21d7-1"))


def test_a_request_that_comes_after_its_flow_knows_it():
    log = filled(records.flow(1), records.request(1, 1))
    assert log[1].flow == records.flow(1)


FILTERS = ["", "is:request", "uid:7", "-uid:7", "status:404"]


class Model(RuleBasedStateMachine):
    """Beside a list of all records that is filtered anew each time."""

    def __init__(self):
        super().__init__()
        self.log = Log(most=8)
        self.all = []
        self.filter = parse("")

    @rule(of=st.integers(1, 4), status=st.sampled_from([200, 404]))
    def request(self, of, status):
        self.add(records.request(1, of, status=status))

    @rule(of=st.integers(1, 4), uid=st.sampled_from([7, None]))
    def flow(self, of, uid):
        self.add(records.flow(of, client=Client(uid=uid)))

    def add(self, record):
        self.all.append(record)
        self.log.add(records.told(record))

    @rule(text=st.sampled_from(FILTERS))
    def choose(self, text):
        self.filter = parse(text)
        self.log.choose(self.filter)

    @invariant()
    def kept_and_shown(self):
        first = max(0, len(self.all) - 8)
        assert len(self.log) == len(self.all) - first
        kept = [self.log[serial] for serial in range(first, len(self.all))]
        assert [one.record for one in kept] == self.all[first:]
        assert list(self.log.shown) == [first + number for number, one in enumerate(kept) if self.filter.matches(one)]
        for one in kept:
            siblings = [other.record for other in kept if other.flow_id == one.flow_id]
            flows = [record for record in siblings if isinstance(record, FlowRecord)]
            if not isinstance(one.record, FlowRecord) and flows:
                assert one.flow is not None
            assert len(self.log.requests(one.flow_id)) == len(siblings) - len(flows)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
