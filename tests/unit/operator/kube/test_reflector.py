"""A reflector and an API server that does everything an API server may do."""

import asyncio

import msgspec
import pytest

from samples.fake_api import FakeApi, answer, bookmark, configmap, event, listing, refusal, silence, watch
from weir_operator.kube.reflector import Change, Pace, Reflector, plain

PACE = Pace(watch=(1, 1), grace=0.0, pause=0.001, longest=0.002)
PATH = "/api/v1/configmaps"
A, B, C = ("a", "x"), ("a", "y"), ("a", "z")


class Seen:
    """What a reflector told."""

    def __init__(self):
        self.changes = []
        self.problems = []

    def __call__(self, change, key, old, new):
        self.changes.append((change, key, old and old["data"], new and new["data"]))


def follow(*script, decode=plain, pace=PACE, wait=None, **options):
    """Follow the server until its script is over; what was told, the reflector, and the requests' parameters."""
    seen = Seen()

    async def main():
        async with FakeApi(*script) as api, api.client() as client:
            reflector = Reflector(
                client,
                PATH,
                decode,
                on_problem=seen.problems.append,
                pace=pace,
                uniform=lambda low, high: high,
                **options,
            )
            reflector.subscribe(seen)
            task = asyncio.create_task(reflector.run())
            await asyncio.wait_for(api.answered.wait(), 20)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return reflector, [dict(request.query) for request in api.requests], api

    return seen, *asyncio.run(main())


def versions(queries):
    """What each request asked for: a list, or a watch from a version."""
    return [query.get("resourceVersion", "list") if "watch" in query else "list" for query in queries]


def test_it_lists_and_then_watches_from_there():
    seen, reflector, queries, _ = follow(
        listing(5, configmap("x", 3), configmap("n", 4, namespace=None)),
        watch(
            event("ADDED", configmap("y", 6)),
            event("MODIFIED", configmap("x", 7, new="v")),
            event("DELETED", configmap("y", 8)),
        ),
    )
    assert seen.changes == [
        (Change.ADDED, A, None, {}),
        (Change.ADDED, (None, "n"), None, {}),
        (Change.ADDED, B, None, {}),
        (Change.MODIFIED, A, {}, {"new": "v"}),
        (Change.DELETED, B, {}, None),
    ]
    assert set(reflector.objects) == {A, (None, "n")}
    assert versions(queries) == ["list", "5", "8"]
    assert queries[1]["allowWatchBookmarks"] == "true"
    assert queries[1]["timeoutSeconds"] == "1"
    assert seen.problems == []


def test_a_list_comes_in_pages():
    _, reflector, queries, _ = follow(
        listing(5, configmap("x", 3), more="token"), listing(5, configmap("y", 4)), watch()
    )
    assert set(reflector.objects) == {A, B}
    assert [query.get("continue") for query in queries][:2] == [None, "token"]
    assert queries[0]["limit"] == "500"


def test_selectors_and_metadata_are_asked_for_in_both():
    _, _, queries, api = follow(
        listing(5), watch(), label_selector="a=b", field_selector="metadata.name=c", metadata_only=True
    )
    assert all((query["labelSelector"], query["fieldSelector"]) == ("a=b", "metadata.name=c") for query in queries)
    kinds = [request.headers["Accept"].split(";")[1] for request in api.requests]
    assert kinds == ["as=PartialObjectMetadataList", "as=PartialObjectMetadata", "as=PartialObjectMetadata"]


@pytest.mark.parametrize(
    "gone",
    [
        watch(event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})),
        refusal(410, "Expired"),
        refusal(410, "Gone"),
    ],
)
def test_a_version_that_is_too_old_means_a_new_list_which_shows_what_was_missed(gone):
    seen, reflector, queries, _ = follow(
        listing(5, configmap("x", 3), configmap("y", 4)),
        gone,
        listing(20, configmap("y", 4), configmap("z", 19)),
        watch(),
    )
    assert seen.changes[2:] == [(Change.ADDED, C, None, {}), (Change.DELETED, A, {}, None)]
    assert set(reflector.objects) == {B, C}
    assert versions(queries) == ["list", "5", "list", "20", "20"]
    assert seen.problems == []


def test_a_list_whose_pages_grow_too_old_is_begun_anew():
    _, reflector, queries, _ = follow(
        listing(5, configmap("x", 3), more="t"), refusal(410, "Expired"), listing(9, configmap("y", 8)), watch()
    )
    assert [query.get("continue") for query in queries[:3]] == [None, "t", None]
    assert set(reflector.objects) == {B}


def test_a_watch_that_is_cut_or_ends_goes_on_where_it_was():
    seen, _, queries, _ = follow(
        listing(5),
        watch(event("ADDED", configmap("x", 6)), cut=True),
        watch(),
        watch(event("ADDED", configmap("y", 7)), b'{"type":"ADD', cut=True),
        watch(event("ADDED", configmap("z", 8))),
    )
    assert [key for _, key, _, _ in seen.changes] == [A, B, C]
    assert versions(queries) == ["list", "5", "6", "6", "7", "8"]


def test_bookmarks_alone_move_the_version_and_tell_nobody():
    seen, _, queries, _ = follow(listing(5), watch(bookmark(9), bookmark(12)), watch(bookmark(13)))
    assert seen.changes == []
    assert versions(queries) == ["list", "5", "12", "13"]


def test_events_in_pieces_and_empty_ends():
    whole = event("ADDED", configmap("x", 6)) + event("ADDED", configmap("y", 7))
    seen, _, queries, _ = follow(listing(5), watch(whole[:10], whole[10:100], whole[100:]))
    assert [key for _, key, _, _ in seen.changes] == [A, B]
    assert versions(queries)[-1] == "7"


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"\n",
        b"\xff\n",
        b"[]\n",
        b'{"type":"ADDED"}\n',
        b'{"type":"ADDED","object":{"metadata":{}}}\n',
        event("ERROR", {"code": 500, "message": "etcd"}),
        event("ERROR", []),
    ],
)
def test_what_cannot_be_understood_may_be_any_change_so_all_is_listed_again(line):
    seen, _, queries, _ = follow(
        listing(5), watch(bookmark(6), line), listing(9, configmap("x", 8)), watch(bookmark(10))
    )
    assert versions(queries) == ["list", "5", "list", "9", "10"]
    assert [key for _, key, _, _ in seen.changes] == [A]
    assert len(seen.problems) == 1


@pytest.mark.parametrize("trouble", [refusal(500), refusal(503), refusal(429, "TooManyRequests"), refusal(504)])
def test_a_server_in_trouble_is_asked_again_from_the_same_version(trouble):
    seen, _, queries, _ = follow(trouble, listing(5), trouble, trouble, watch(bookmark(6)))
    assert versions(queries) == ["list", "list", "5", "5", "5", "6"]
    assert len(seen.problems) == 3
    assert all(problem.startswith(PATH) for problem in seen.problems)


@pytest.mark.parametrize("refused", [refusal(403, "Forbidden"), refusal(404, "NotFound"), refusal(401)])
def test_what_is_refused_is_told_and_tried_again_from_the_start(refused):
    seen, _, queries, _ = follow(
        refused, listing(5, configmap("x", 3)), refused, listing(7, configmap("x", 3)), watch()
    )
    assert versions(queries)[:5] == ["list", "list", "5", "list", "7"]
    assert len(seen.changes) == 1
    assert len(seen.problems) == 2


def test_a_server_that_falls_silent_is_left():
    seen, _, queries, _ = follow(listing(5), silence, watch(bookmark(6)))
    assert versions(queries) == ["list", "5", "5", "6"]
    assert "Timeout" in seen.problems[0]


def test_a_list_that_is_no_list_is_told_and_asked_for_again():
    seen, _, queries, _ = follow(answer(b"<html>"), answer({"items": [{"kind": "x"}], "metadata": {}}), listing(5))
    assert versions(queries) == ["list", "list", "list", "5"]
    assert len(seen.problems) == 2


def test_what_is_seen_twice_is_told_once():
    seen, _, _, _ = follow(
        listing(5, configmap("x", 3)),
        watch(event("MODIFIED", configmap("x", 6, a="b")), event("MODIFIED", configmap("x", 6, a="b"))),
        watch(event("DELETED", configmap("x", 7)), event("DELETED", configmap("x", 7))),
        refusal(410, "Gone"),
        listing(9),
        watch(),
    )
    assert [change for change, _, _, _ in seen.changes] == [Change.ADDED, Change.MODIFIED, Change.DELETED]


class Facts(msgspec.Struct, frozen=True):
    data: dict[str, str]


def facts(raw):
    return msgspec.json.decode(raw, type=Facts)


def test_a_change_that_does_not_show_is_not_told():
    told = []

    async def main():
        script = [listing(5, configmap("x", 3, a="b")), watch(event("MODIFIED", configmap("x", 6, a="b")))]
        async with FakeApi(*script) as api, api.client() as client:
            reflector = Reflector(client, PATH, facts, pace=PACE)
            reflector.subscribe(lambda *change: told.append(change))
            task = asyncio.create_task(reflector.run())
            await api.answered.wait()
            task.cancel()

    asyncio.run(main())
    assert told == [(Change.ADDED, A, None, Facts({"a": "b"}))]


def strict(raw):
    obj = plain(raw)
    if "bad" in obj["data"]:
        raise KeyError("bad")
    return obj


def test_objects_that_cannot_be_read_are_told_left_out_and_stop_nobody():
    bad = configmap("y", 4, bad="1")
    seen, reflector, _, _ = follow(
        listing(5, configmap("x", 3), bad, configmap("z", 2)),
        watch(event("MODIFIED", configmap("x", 6, bad="2")), event("MODIFIED", configmap("y", 7, good="1"))),
        refusal(410, "Gone"),
        listing(8, configmap("x", 6, bad="2"), configmap("y", 7, good="1")),
        watch(),
        decode=strict,
    )
    assert [(change, key) for change, key, _, _ in seen.changes] == [
        (Change.ADDED, A),
        (Change.ADDED, C),
        (Change.DELETED, A),
        (Change.ADDED, B),
        (Change.DELETED, C),
    ]
    assert set(reflector.objects) == {B}
    assert [problem.split(": ")[:2] for problem in seen.problems] == [[PATH, "a/y"], [PATH, "a/x"]]


def test_synced_is_after_the_whole_list():
    async def main():
        script = [listing(5, configmap("x", 3), more="t"), refusal(500), listing(5, configmap("x", 3))]
        async with FakeApi(*script) as api, api.client() as client:
            reflector = Reflector(client, PATH, plain, pace=PACE)
            task = asyncio.create_task(reflector.run())
            assert not reflector.is_synced
            await asyncio.wait_for(reflector.synced(), 10)
            assert reflector.is_synced
            assert len(api.requests) >= 3
            late = []
            reflector.subscribe(lambda *change: late.append(change))
            assert late == [(Change.ADDED, A, None, configmap("x", 3))]
            task.cancel()

    asyncio.run(main())


def test_what_a_subscriber_raises_ends_it():
    def subscriber(*_):
        raise LookupError("mine")

    async def main():
        async with FakeApi(listing(5, configmap("x", 3))) as api, api.client() as client:
            reflector = Reflector(client, PATH, plain, pace=PACE)
            reflector.subscribe(subscriber)
            with pytest.raises(LookupError, match="mine"):
                await reflector.run()

    asyncio.run(main())


def test_pauses_double_up_to_the_longest_and_end_with_the_first_event(monkeypatch):
    pauses = []
    sleep = asyncio.sleep

    async def note(seconds):
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr("weir_operator.kube.reflector.asyncio.sleep", note)
    trouble = refusal(503)
    follow(
        *[trouble] * 4,
        listing(5),
        watch(bookmark(6)),
        watch(),
        refusal(429, "TooManyRequests", retryAfterSeconds=7),
        pace=Pace(watch=(1, 1), pause=0.5, longest=4.0),
    )
    ours = [pause for pause in pauses if isinstance(pause, float)]  # aiohttp's are whole numbers
    assert ours == [1.0, 2.0, 4.0, 4.0, 0.0, 1.0, 7.0]
