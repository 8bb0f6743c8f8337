"""What pods tell, written: merged, not too often, and not lost."""

import asyncio
import copy

import pytest

from weir_operator.cluster.facts import Workload
from weir_operator.kube.errors import ApiError, Reason
from weir_operator.serving import exception_writer
from weir_operator.serving.exception_writer import MAX_PER_WORKLOAD, ExceptionWriter
from weir_operator.serving.exceptions import Subject, exception_facts, new_object, object_name
from weir_operator.serving.knowledge import CapturedPod, Exceptions
from weir_operator.serving.metrics import Metrics
from weir_sidecar.contract.trust import State, Told

NOW = 1_800_000_000.0
WEB = Workload("Deployment", "web")
FOREVER = 3600.0


def pod(name="web-1", workload=WEB):
    return CapturedPod("shop", name, f"uid-{name}", {}, workload, True, False, False, False, False)


def told(state=State.BYPASSED, host="a.example", **more):
    return Told(host, state, first_seen=NOW - 9, last_seen=NOW - 9, expires_at=NOW + 60, **more)


class FakeApi:
    """One collection, with versions; `before` is called with each request and may raise, or change what is there."""

    def __init__(self, before=lambda method, api: None):
        self.objects = {}
        self.requests = []
        self.exceptions = Exceptions()
        self._before = before
        self._version = 0

    def take(self, name, obj):
        self._version += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        old = self.objects.get(name)
        self.objects[name] = obj
        self.exceptions.take(old and exception_facts(old), exception_facts(obj))
        return copy.deepcopy(obj)

    async def _request(self, method):
        self.requests.append(method)
        await asyncio.sleep(0)
        self._before(method, self)

    async def get(self, path):
        await self._request("GET")
        name = path.rpartition("/")[2]
        if name not in self.objects:
            raise ApiError(404, Reason.NOT_FOUND, "")
        return copy.deepcopy(self.objects[name])

    async def create(self, path, obj):
        await self._request("POST")
        if obj["metadata"]["name"] in self.objects:
            raise ApiError(409, Reason.ALREADY_EXISTS, "")
        return self.take(obj["metadata"]["name"], obj)

    async def replace(self, path, obj):
        await self._request("PUT")
        name = obj["metadata"]["name"]
        if name not in self.objects:
            raise ApiError(404, Reason.NOT_FOUND, "")
        if obj["metadata"]["resourceVersion"] != self.objects[name]["metadata"]["resourceVersion"]:
            raise ApiError(409, Reason.CONFLICT, "")
        return self.take(name, {**self.objects[name], "status": obj["status"]})

    @property
    def statuses(self):
        return [obj["status"] for obj in self.objects.values() if "status" in obj]


def run(api, *reports, seconds=0.2, pause=0.0):
    """Take reports, wait, and return the writer's metrics."""
    metrics = Metrics()

    async def main():
        writer = ExceptionWriter(api, api.exceptions, lambda: NOW, metrics)
        for one, entries in reports:
            writer.report(one, entries)
            if pause:
                await asyncio.sleep(pause)
        await asyncio.sleep(seconds)

    asyncio.run(main())
    return metrics


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(exception_writer, "MIN_INTERVAL", 0.01)
    monkeypatch.setattr(exception_writer, "_LATER", (0.01, 0.01))


def test_what_is_told_becomes_an_object_with_a_status():
    api = FakeApi()
    run(api, (pod(), [told(alert=48)]))
    (status,) = api.statuses
    assert (status["state"], status["alert"], status["pods"]) == ("Bypassed", 48, ["web-1"])
    assert api.requests == ["GET", "POST", "PUT"]


def test_what_is_told_at_once_is_written_at_once():
    api = FakeApi()
    run(api, *((pod(f"web-{number}"), [told()]) for number in range(5)))
    assert api.requests.count("PUT") == 1
    assert len(api.statuses[0]["pods"]) == 5


def test_what_is_known_is_not_written_again():
    api = FakeApi()
    run(api, (pod(), [told()]), (pod(), [told()]), pause=0.05)
    assert api.requests.count("PUT") == 1


@pytest.mark.parametrize("state", [State.TRUSTED, State.UNKNOWN, State.APPROVED, State.PINNED])
def test_what_is_not_noteworthy_makes_no_object(state):
    api = FakeApi()
    run(api, (pod(), [told(state)]))
    assert not api.requests


def test_it_changes_one_that_is_there():
    api = FakeApi()
    run(api, (pod(), [told()]), (pod(), [Told("a.example", State.TRUSTED, last_seen=NOW - 1)]), pause=0.05)
    assert [status["state"] for status in api.statuses] == ["Trusted"]


def test_one_that_a_person_made_is_used_whatever_its_name():
    api = FakeApi()
    api.take("mine", new_object("shop", "mine", Subject(WEB, "a.example")))
    run(api, (pod(), [told()]))
    assert list(api.objects) == ["mine"]
    assert api.statuses[0]["state"] == "Bypassed"


def test_a_change_by_others_in_between_is_kept():
    def meddle(method, api):
        if method == "PUT" and api.requests.count("PUT") == 1:
            (name,) = api.objects
            status = {"state": "Failing", "lastSeen": "2027-01-15T07:59:00Z", "pods": ["other"], "conditions": []}
            api.take(name, {**api.objects[name], "status": status})

    api = FakeApi(meddle)
    run(api, (pod(), [told()]))
    (status,) = api.statuses
    assert status["pods"] == ["other", "web-1"]
    assert status["conditions"] == []


def test_what_another_replica_made_in_between_is_used():
    def meddle(method, api):
        if method == "POST" and api.requests.count("POST") == 1:
            subject = Subject(WEB, "a.example")
            api.take(object_name(subject), new_object("shop", object_name(subject), subject))

    api = FakeApi(meddle)
    run(api, (pod(), [told()]))
    assert len(api.objects) == 1
    assert api.statuses[0]["state"] == "Bypassed"


def test_one_that_is_removed_in_between_is_made_again():
    def meddle(method, api):
        if method == "PUT" and api.requests.count("PUT") == 1:
            ((name, obj),) = api.objects.items()
            api.exceptions.take(exception_facts(obj), None)
            del api.objects[name]

    api = FakeApi(meddle)
    run(api, (pod(), [told()]))
    assert api.statuses[0]["state"] == "Bypassed"


@pytest.mark.parametrize(
    "error",
    [
        ApiError(0, Reason.UNREACHABLE, ""),
        ApiError(503, Reason.SERVICE_UNAVAILABLE, ""),
        ApiError(403, Reason.FORBIDDEN, ""),
    ],
)
def test_while_the_api_server_is_away_nothing_is_lost(error):
    def away(method, api):
        if len(api.requests) < 4:
            raise error

    api = FakeApi(away)
    run(api, (pod(), [told()]), (pod("web-2"), [told()]))
    assert sorted(api.statuses[0]["pods"]) == ["web-1", "web-2"]


def test_what_the_schema_does_not_let_in_is_dropped_and_counted():
    def refuse(method, api):
        if method == "POST":
            raise ApiError(422, Reason.INVALID, "spec.host: no")

    api = FakeApi(refuse)
    metrics = run(api, (pod(), [told()]))
    assert api.requests == ["GET", "POST"]
    assert metrics.exceptions_dropped.value("Invalid") == 1


def test_the_objects_of_a_workload_are_bounded_and_others_have_their_own():
    api = FakeApi()
    many = [told(host=f"h{number}.example") for number in range(MAX_PER_WORKLOAD + 10)]
    metrics = run(api, (pod(), many), (pod("b-1", Workload("Deployment", "b")), [told()]), seconds=1.0)
    assert len(api.objects) == MAX_PER_WORKLOAD + 1
    assert metrics.exceptions_dropped.value("too_many") == 10


def test_news_of_the_same_state_wait_and_news_of_another_do_not(monkeypatch):
    monkeypatch.setattr(exception_writer, "MIN_INTERVAL", FOREVER)
    api = FakeApi()
    run(api, (pod(), [told()]), (pod("web-2"), [told()]), pause=0.05)
    assert api.statuses[0]["pods"] == ["web-1"]
    api = FakeApi()
    trusted = Told("a.example", State.TRUSTED, last_seen=NOW - 1)
    run(api, (pod(), [told()]), (pod("web-2"), [trusted]), pause=0.05)
    assert (api.statuses[0]["state"], api.statuses[0]["pods"]) == ("Trusted", ["web-1", "web-2"])
