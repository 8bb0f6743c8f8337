"""Where the applications of an end-to-end test run: a namespace, in one mode of the installation."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from lab.origin_pod import Origin
from lab.running import wait_for
from lab.weir_cluster import WeirCluster
from lab.workloads import Object, policy, strict

_PLACES = {"cni.confDir": "WEIR_TEST_CNI_CONF_DIR", "cni.binDir": "WEIR_TEST_CNI_BIN_DIR"}
_SCHEDULED = "reason=Scheduled"


class Mode(StrEnum):
    """What sets a pod's network up."""

    INIT = "init"
    CNI = "cni"

    @property
    def values(self) -> tuple[str, ...]:
        """Of the chart. The environment says where the nodes have their CNI configuration and plugins, if elsewhere."""
        if self is Mode.INIT:
            return ()
        given = [f"{value}={os.environ[name]}" for value, name in _PLACES.items() if name in os.environ]
        return ("cni.enabled=true", *given)


class Place:
    """A namespace. In CNI mode it enforces the level restricted of Pod Security, and its pods are made to fit."""

    def __init__(self, weir: WeirCluster, namespace: str, mode: Mode) -> None:
        self.weir = weir
        self.namespace = namespace
        self.mode = mode

    def policy(self, name: str, app: str, **spec: Any) -> None:
        """Have an InterceptionPolicy for the pods of an application."""
        self.weir.apply(policy(name, self.namespace, app, **spec))

    def start(self, *objects: Object) -> None:
        """Create pods, or what makes pods."""
        self.weir.apply(*({**one, "metadata": {**one["metadata"], "namespace": self.namespace}} for one in objects))

    def fit(self, made: Object) -> Object:
        """The pod, as this namespace allows it."""
        return strict(made) if self.mode is Mode.CNI else made

    def pod(self, name: str) -> Any:
        """The pod as the API server has it."""
        return self.weir.get("pod", name, "-n", self.namespace)

    def pod_of(self, app: str) -> Any:
        """The only pod of an application that is not about to end."""
        (pod,) = [one for one in self.pods(app) if "deletionTimestamp" not in one["metadata"]]
        return pod

    def pods(self, app: str) -> list[Any]:
        """The pods of an application."""
        return self.weir.pods(self.namespace, f"app={app}")

    def calls(self, name: str) -> list[dict[str, Any]]:
        """What a caller told of its requests."""
        return self.weir.calls(self.namespace, name)

    def wait_calling(self, name: str, *hosts: str, since: float = 0, seconds: float = 120) -> None:
        """Until a caller got through to each of the hosts, through Weir, with a request that it began after `since`."""

        def got_through() -> bool:
            through = {one["host"] for one in self.calls(name) if one["at"] > since and one["ok"] and one["weir"]}
            return through >= set(hosts)

        wait_for(f"{name} is captured and gets through", got_through, seconds)

    def records(self, name: str) -> list[dict[str, Any]]:
        """What a pod's sidecar recorded."""
        return self.weir.told(self.namespace, name, "weir-sidecar")

    def exec(self, name: str, *argv: str, container: str = "app") -> str:
        """What a program says that is run in a container."""
        return self.weir.kubectl("exec", name, "-n", self.namespace, "-c", container, "--", *argv)


@contextmanager
def place(weir: WeirCluster, origin: Origin, mode: Mode, counted: list[int]) -> Iterator[Place]:
    """A new namespace, which knows the origin's CA. How many pods there were in it goes to `counted`."""
    level = "restricted" if mode is Mode.CNI else "privileged"
    labels = {"pod-security.kubernetes.io/enforce": level}
    with weir.cluster.namespace(labels, prefix=f"weir-e2e-{mode}") as namespace:
        origin.introduce(namespace)
        yield Place(weir, namespace, mode)
        events = json.loads(
            weir.kubectl("get", "events", "-n", namespace, "--field-selector", _SCHEDULED, "-o", "json")
        )
        counted.append(len(events["items"]))
