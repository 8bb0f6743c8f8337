"""The client and the reflector against a real API server: versions that expired, a server that is killed, rights."""

import asyncio
import itertools
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

import pytest

from weir_operator.kube import client as client_module
from weir_operator.kube.client import Client, Patch
from weir_operator.kube.errors import ApiError, Reason
from weir_operator.kube.reflector import Change, Pace, Reflector, plain

pytestmark = pytest.mark.cluster

LABEL = "weir-test-reflector"
QUICK = Pace(watch=(2, 3), pause=0.02, longest=0.2)


def configmap(name, **data):
    return {"metadata": {"name": name, "labels": {LABEL: "1"}}, "data": data}


def path(namespace, name=""):
    return f"/api/v1/namespaces/{namespace}/configmaps" + (f"/{name}" if name else "")


@asynccontextmanager
async def followed(cluster, namespace, pace=QUICK, **options):
    """A client, a reflector that follows the namespace's ConfigMaps, and what it tells."""
    told = []
    async with Client.from_environment(str(cluster.kubeconfig)) as client:
        problems = []
        reflector = Reflector(
            client, path(namespace), plain, label_selector=LABEL, pace=pace, on_problem=problems.append, **options
        )
        reflector.subscribe(lambda change, key, _old, _new: told.append((change, key[1])))
        task = asyncio.create_task(reflector.run())
        try:
            yield client, reflector, told
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def until(holds, seconds=20):
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is waited for is another program's
            await asyncio.sleep(0.01)


def restart(own_cluster, down_seconds=0):
    own_cluster.restart_api_server(down_seconds)
    own_cluster.session.close()  # its connections ended with the server


def test_what_happens_is_told_once_and_in_order(cluster, namespace, monkeypatch):
    monkeypatch.setattr(client_module, "_PAGE", "2")

    async def main():
        async with Client.from_environment(str(cluster.kubeconfig)) as client:
            for name in "abcde":
                await client.create(path(namespace), configmap(name))
            await client.create(path(namespace), {"metadata": {"name": "unlabelled"}})
        async with followed(cluster, namespace) as (client, reflector, told):
            await asyncio.wait_for(reflector.synced(), 20)
            assert told == [(Change.ADDED, name) for name in "abcde"]
            del told[:]
            await client.create(path(namespace), configmap("f"))
            await client.patch(path(namespace, "f"), {"data": {"x": "y"}})
            await client.delete(path(namespace, "a"))
            # Longer than a watch lasts, so that this is another one.
            await asyncio.sleep(4)
            await client.create(path(namespace), configmap("g"))
            await until(lambda: len(told) == 4)
            assert told == [
                (Change.ADDED, "f"),
                (Change.MODIFIED, "f"),
                (Change.DELETED, "a"),
                (Change.ADDED, "g"),
            ]
            assert reflector.objects[namespace, "f"]["data"] == {"x": "y"}
            assert {name for _, name in reflector.objects} == set("bcdefg")

    asyncio.run(main())


def test_an_expired_version_means_a_new_list_and_the_deletes_that_were_missed(own_cluster):
    async def before(namespace):
        async with followed(own_cluster, namespace) as (client, reflector, told):
            await asyncio.wait_for(reflector.synced(), 20)
            for name in "abc":
                await client.create(path(namespace), configmap(name))
            await until(lambda: len(told) == 3)
            return reflector, told

    async def after(namespace, reflector, told):
        del told[:]
        async with Client.from_environment(str(own_cluster.kubeconfig)) as client:
            await client.delete(path(namespace, "a"))
            await client.patch(path(namespace, "b"), {"data": {"x": "y"}})
            reflector._client = client
            task = asyncio.create_task(reflector.run())
            await until(lambda: len(told) == 2)
            task.cancel()
        assert told == [(Change.MODIFIED, "b"), (Change.DELETED, "a")]  # what was missed comes last

    with own_cluster.namespace() as namespace:
        reflector, told = asyncio.run(before(namespace))
        restart(own_cluster)  # it remembers no change from before
        reflector._version = "1"
        asyncio.run(after(namespace, reflector, told))


def test_metadata_only(cluster, namespace):
    async def main():
        async with followed(cluster, namespace, metadata_only=True) as (client, reflector, told):
            await asyncio.wait_for(reflector.synced(), 20)
            await client.create(path(namespace), configmap("a", big="x" * 10000))
            await until(lambda: told)
            (seen,) = reflector.objects.values()
            assert (seen["kind"], "data" in seen) == ("PartialObjectMetadata", False)
            assert seen["metadata"]["labels"] == {LABEL: "1"}

    asyncio.run(main())


def test_nothing_is_lost_or_told_twice_while_the_server_is_killed(own_cluster):
    stop = threading.Event()

    async def write(client, namespace):
        """Make objects and remove some until told to stop, whatever the server does."""
        for number in itertools.count():
            with suppress(ApiError):
                await client.create(path(namespace), configmap(f"n{number}"))
            if number % 3 == 0:
                with suppress(ApiError):
                    await client.delete(path(namespace, f"n{number}"))
            if stop.is_set():
                return
            await asyncio.sleep(0.02)

    async def main(namespace):
        async with followed(own_cluster, namespace) as (client, reflector, told):
            await asyncio.wait_for(reflector.synced(), 20)
            await write(client, namespace)
            listed = await client.list(path(namespace), {"labelSelector": LABEL})
            there = {obj["metadata"]["name"]: obj["metadata"]["resourceVersion"] for obj in listed}
            assert there

            def seen():
                return {name: obj["metadata"]["resourceVersion"] for (_, name), obj in reflector.objects.items()}

            await until(lambda: seen() == there)
            assert set(Counter(told).values()) == {1}
            assert set(there) <= {name for change, name in told if change is Change.ADDED}

    # The main thread starts the server: it would end with another.
    with own_cluster.namespace() as namespace, ThreadPoolExecutor(1) as executor:
        following = executor.submit(asyncio.run, main(namespace))
        try:
            time.sleep(0.5)
            restart(own_cluster, 0.5)
            time.sleep(0.5)
        finally:
            stop.set()
        following.result(60)


def test_failures_of_a_real_server_are_told_apart(cluster, namespace):
    async def reason(asking):
        with pytest.raises(ApiError) as refused:
            await asking
        return refused.value.reason

    async def main():
        async with Client.from_environment(str(cluster.kubeconfig)) as client:
            made = await client.create(path(namespace), configmap("a"))
            assert await reason(client.create(path(namespace), configmap("a"))) is Reason.ALREADY_EXISTS
            await client.replace(path(namespace, "a"), {**made, "data": {"x": "y"}})
            assert await reason(client.replace(path(namespace, "a"), made)) is Reason.CONFLICT
            assert await reason(client.get(path(namespace, "b"))) is Reason.NOT_FOUND
            assert await reason(client.create(path(namespace), configmap("A B"))) is Reason.INVALID
            assert await reason(client.get("/apis/weir.dev/v9/none")) is Reason.NOT_FOUND
            test_first = [{"op": "test", "path": "/data/x", "value": "z"}]
            assert await reason(client.patch(path(namespace, "a"), test_first, Patch.JSON)) is Reason.INVALID
            own = {"apiVersion": "v1", "kind": "ConfigMap", **configmap("applied", k="v")}
            applied = await client.patch(path(namespace, "applied"), own, Patch.APPLY, {"fieldManager": "weir"})
            assert applied["data"] == {"k": "v"}
            expired = client.list(path(namespace), {"continue": "bogus"})
            assert await reason(expired) is Reason.BAD_REQUEST

    asyncio.run(main())


def test_a_service_account_has_its_own_rights(cluster, namespace):
    kubeconfig = cluster.kubeconfig_for(namespace, "default")

    async def main():
        async with Client.from_environment(str(kubeconfig)) as client:
            with pytest.raises(ApiError) as refused:
                await client.list(path(namespace))
            return refused.value

    error = asyncio.run(main())
    assert error.reason is Reason.FORBIDDEN
    assert f"system:serviceaccount:{namespace}:default" in error.message
