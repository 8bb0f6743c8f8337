"""That kopf's end is not the operator's. What it does with an API server is in tests/cluster."""

import asyncio
import threading

import kopf

from weir_operator.kube.kubeconfig import Access
from weir_operator.operate import watch

ACCESS = Access("https://127.0.0.1:1")


def test_kopf_is_started_again_when_it_ends_and_not_after_the_end(monkeypatch):
    starts, again = [], threading.Event()

    def run(*, stop_flag, **options):
        starts.append(options)
        if len(starts) == 1:
            raise RuntimeError("as kopf ends when a watch fails in a way that it does not know")
        again.set()
        stop_flag.wait()

    monkeypatch.setattr(kopf, "run", run)
    monkeypatch.setattr(watch, "RESTART_SECONDS", 0.01)

    async def main():
        watcher = watch.Watcher(ACCESS, lambda _kind, _obj: None)
        watcher.start()
        assert await asyncio.to_thread(again.wait, 10)
        await watcher.stop()
        assert not watcher._thread.is_alive()

    asyncio.run(main())
    assert len(starts) == 2
    assert starts[0]["standalone"]
    assert starts[0]["clusterwide"]


def test_it_only_looks():
    registry = watch._registry(ACCESS, lambda _kind, _obj: None)
    assert len(registry._watching.get_all_handlers()) == 5
    for others in (registry._changing, registry._spawning, registry._webhooks):
        assert not list(others.get_all_handlers())
    assert not watch._settings().posting.enabled


def test_events_are_told_in_the_loop_that_started_it(monkeypatch):
    seen = []

    def run(*, registry, stop_flag, **_):
        (handler, *_others) = registry._watching.get_all_handlers()
        asyncio.run(handler.fn(event={"type": "DELETED", "object": {"kind": "TrustPolicy"}}))
        stop_flag.wait()

    monkeypatch.setattr(kopf, "run", run)

    async def main():
        done = asyncio.Event()
        here = threading.current_thread()

        def note(kind, obj):
            seen.append((kind, obj, threading.current_thread() is here))
            done.set()

        watcher = watch.Watcher(ACCESS, note)
        watcher.start()
        async with asyncio.timeout(10):
            await done.wait()
        await watcher.stop()

    asyncio.run(main())
    assert seen == [("DELETED", {"kind": "TrustPolicy"}, True)]
