"""What only a node can do to a pod, done from a privileged pod on each node: send signals to its processes, look at what
they may do, and watch what leaves its network namespace. The program there is `programs/hands.py`.
"""

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lab.running import wait_for
from lab.weir_cluster import WeirCluster
from lab.workloads import SIDECAR_IMAGE

_NAME = "hands"
_PROXY = "15801"
_PROGRAM = (Path(__file__).parent / "programs/hands.py").read_text()

type Pod = Mapping[str, Any]


class Watched(NamedTuple):
    """What left a pod since it is watched."""

    packets: int
    """Of the proxy's."""
    leaks: list[Any]
    """Of others: address, protocol and port, each once."""


class Hands:
    """A pod on each node, with all rights there; see `start`."""

    def __init__(self, weir: WeirCluster, namespace: str) -> None:
        self._weir = weir
        self._namespace = namespace

    def start(self) -> None:
        """Until there is one on each node."""
        made = {
            "name": _NAME,
            "image": SIDECAR_IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "infinity"],
            "securityContext": {"privileged": True},
        }
        spec = {
            "hostPID": True,
            "hostNetwork": True,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [made],
        }
        labels = {"app": _NAME}
        template = {"metadata": {"labels": labels}, "spec": spec}
        self._weir.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": {"name": _NAME, "namespace": self._namespace},
                "spec": {"selector": {"matchLabels": labels}, "template": template},
            }
        )
        self._weir.wait_rolled_out(self._namespace, _NAME, kind="daemonset")

    def kill(self, pod: Pod, container: str, number: int = signal.SIGKILL) -> float:
        """Send a signal to all processes of a container; the time of its node then."""
        return float(self._run(pod, "kill", container, str(int(number))))

    def processes(self, pod: Pod, container: str) -> list[dict[str, str]]:
        """/proc/PID/status of each process of a container (proc_pid_status(5))."""
        return list(self._run(pod, "processes", container))

    def watch(self, pod: Pod) -> None:
        """Begin to watch what leaves a pod; also to be asked when it has ended."""
        self._run(pod, "watch", "app", _PROXY)

    def watched(self, pod: Pod) -> Watched:
        """What left it since then."""
        return Watched(**self._run(pod, "watched", "app"))

    def _run(self, pod: Pod, command: str, container: str, *args: str) -> Any:
        node = pod["spec"]["nodeName"]
        (here,) = [
            one["metadata"]["name"]
            for one in self._weir.pods(self._namespace, f"app={_NAME}")
            if one["spec"].get("nodeName") == node
        ]
        identifier = status_of(pod, container)["containerID"].partition("://")[2]
        argv = ("python3", "-c", _PROGRAM, command, identifier, *args)
        return json.loads(self._weir.kubectl("exec", here, "-n", self._namespace, "--", *argv))


def status_of(pod: Pod, container: str) -> dict[str, Any]:
    """What the kubelet says of a container."""
    statuses = (*pod["status"].get("initContainerStatuses", ()), *pod["status"].get("containerStatuses", ()))
    return next((one for one in statuses if one["name"] == container), {})


def wait_restarted(weir: WeirCluster, pod: Pod, container: str, seconds: float = 120) -> None:
    """Until a container was started anew and is ready, after the pod was as given."""
    before = status_of(pod, container)["restartCount"]
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]

    def restarted() -> bool:
        now = status_of(weir.get("pod", name, "-n", namespace), container)
        return now["restartCount"] > before and bool(now["ready"])

    wait_for(f"{container} of {name} was started anew", restarted, seconds)
