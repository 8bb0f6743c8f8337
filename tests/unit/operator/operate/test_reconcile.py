"""One run at a time, against an API server that does as the test wants. The real one is in tests/cluster."""

import asyncio
from datetime import UTC, datetime

import pytest

from samples.worlds import exception, policy, world
from weir_operator.kube.errors import ApiError, Reason
from weir_operator.operate.metrics import Metrics
from weir_operator.operate.reconcile import Reconciler
from weir_operator.operate.repair import Choice
from weir_operator.operate.store import Store
from weir_operator.operate.world import World, key_of

NOW = datetime(2027, 2, 3, tzinfo=UTC)
OLD = {"state": "Bypassed", "lastSeen": "2027-01-01T00:00:00Z", "expiresAt": "2027-01-01T01:00:00Z"}


class Server:
    """Stores statuses, or less of them; fails with what is in `failing`."""

    def __init__(self, *objects):
        self.objects = {key_of(obj): obj for obj in objects}
        self.requests = []
        self.failing = None
        self.forgets = ()

    async def patch(self, path, patch, kind, params):
        self.requests.append(("PATCH", path.rsplit("/", 2)[1], params["fieldManager"]))
        if self.failing:
            raise ApiError(0, self.failing, "as the test wants")
        obj = next(obj for obj in self.objects.values() if obj["metadata"]["name"] == path.rsplit("/", 2)[1])
        status = {k: v for k, v in ((obj.get("status") or {}) | patch["status"]).items() if k not in self.forgets}
        metadata = obj["metadata"] | {"resourceVersion": str(int(obj["metadata"]["resourceVersion"]) + 1)}
        self.objects[key_of(obj)] = made = {**obj, "metadata": metadata, "status": status}
        return made

    async def delete(self, path, options):
        self.requests.append(("DELETE", path.rsplit("/", 1)[1], options["preconditions"]["resourceVersion"]))
        if self.failing:
            raise ApiError(0, self.failing, "as the test wants")


class Observed:
    """What is followed: the store, and no pods."""

    def __init__(self, *objects):
        self.store = Store(lambda: None)
        for obj in objects:
            self.store.put(obj)

    def world(self) -> World:
        return world(*self.store.objects.values())


class Lab:
    def __init__(self, *objects):
        self.server, self.observed, self.metrics = Server(*objects), Observed(*objects), Metrics()
        self.reconciler = Reconciler(self.server, lambda: NOW, self.metrics, Choice({}))

    def run(self):
        """One run; what it asked for, and how many writes failed."""
        self.server.requests.clear()
        failed = asyncio.run(self.reconciler._once(self.observed))
        return list(self.server.requests), failed


def test_each_status_is_written_once():
    lab = Lab(policy("a"), policy("b"), exception("e", decision="Intercept"))
    assert lab.run() == ([("PATCH", name, "weir-operator") for name in "abe"], 0)
    assert lab.run() == ([], 0)


def test_what_somebody_else_wrote_into_a_status_is_put_right_once():
    lab = Lab(policy("a"))
    lab.run()
    found = lab.server.objects[key_of(policy("a"))]
    metadata = found["metadata"] | {"resourceVersion": "9"}
    lab.observed.store.put({**found, "metadata": metadata, "status": found["status"] | {"missed": ["nonsense"]}})
    assert len(lab.run()[0]) == 1


def test_a_server_that_stores_less_than_it_was_given_is_not_asked_again_and_again():
    lab = Lab(policy("a"))
    lab.server.forgets = ("observedGeneration",)
    assert len(lab.run()[0]) == 1
    assert lab.run() == ([], 0)


def test_a_status_that_is_refused_waits_until_something_changes():
    lab = Lab(policy("a"))
    lab.server.failing = Reason.INVALID
    assert (len(lab.run()[0]), lab.run()) == (1, ([], 0))


@pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.FORBIDDEN, Reason.INTERNAL_ERROR])
def test_a_write_that_fails_is_counted_and_made_again(reason):
    lab = Lab(policy("a"))
    lab.server.failing = reason
    assert lab.run()[1] == 1
    lab.server.failing = None
    assert len(lab.run()[0]) == 1


def test_an_object_that_is_gone_is_forgotten():
    lab = Lab(policy("a"))
    lab.server.failing = Reason.NOT_FOUND
    assert lab.run()[1] == 0
    assert lab.observed.store.objects == {}


def test_an_exception_that_had_its_time_is_deleted_as_it_was_seen_and_not_written_before():
    lab = Lab(exception("e", status=OLD), exception("decided", decision="Intercept", status=OLD))
    assert sorted(lab.run()[0]) == [("DELETE", "e", "1"), ("PATCH", "decided", "weir-operator")]
    assert [key.name for key in lab.observed.store.objects] == ["decided"]


def test_one_that_was_seen_again_meanwhile_stays():
    lab = Lab(exception("e", status=OLD))
    lab.server.failing = Reason.CONFLICT
    assert lab.run()[1] == 0
    assert [key.name for key in lab.observed.store.objects] == ["e"]
