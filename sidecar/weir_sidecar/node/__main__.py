"""`python -m weir_sidecar.node`: the agent of one node, until SIGTERM. Errors are lines on standard error.

When it ends and its DaemonSet stays (an upgrade, a crash), so does the plugin: pods wait for the next agent. When the
DaemonSet goes, the plugin goes.
"""

import argparse
import os
import resource
import select
import sys
import time
from collections.abc import Callable
from functools import partial

from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.netsetup.features import detect
from weir_sidecar.node import probe, repair
from weir_sidecar.node.agent import Agent, Tasks, open_listener
from weir_sidecar.node.counters import Counters
from weir_sidecar.node.install import Installation
from weir_sidecar.node.pods import ACCOUNT, PodReader
from weir_sidecar.node.probe import Probe
from weir_sidecar.node.records import Records
from weir_sidecar.node.repair_edge import PassedFiles, Schedule, edge_of
from weir_sidecar.node.worker import Duty, Visit, Worker

_GONE_SECONDS = 20.0
"""How long a DaemonSet is asked for when the agent ends; the kubelet gives it 30."""
_MOST_WORKERS = 8
_LOOK_SECONDS = 1.0


def main() -> int:
    """Parse the arguments and run."""
    args = _parser().parse_args()
    _raise_file_limit()
    try:
        _run(args)
    except KeyError as error:
        _say(f"{error} is not in the environment: this program runs in a pod of Kubernetes")
        return 1
    except (CaptureError, OSError) as error:
        _say(str(error))
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="weir-node", description="Captures the pods of this node, for the CNI plugin weir-cni."
    )
    parser.add_argument("--dir", default="/run/weir/agent", help="on the node's tmpfs: cni.sock, and records of pods")
    parser.add_argument(
        "--account-dir", default=ACCOUNT, help="token and ca.crt of the service account, for the API server"
    )
    parser.add_argument(
        "--image", required=True, help="the installation's sidecar: pods with another one are not captured"
    )
    at_once = min(_MOST_WORKERS, 2 * (os.cpu_count() or 1))
    parser.add_argument("--at-once", type=int, default=at_once, help="pods to set up at a time")
    parser.add_argument("--health-port", type=int, help="for /healthz, /readyz and /metrics, on all addresses")
    parser.add_argument(
        "--plugin", default="/opt/weir/cni/weir-cni", help="the plugin's program, to be put on the node"
    )
    parser.add_argument("--cni-bin-dir", help="where the node keeps plugins; without it nothing is installed")
    parser.add_argument("--cni-conf-dir", help="where the container runtime finds its network configuration")
    parser.add_argument(
        "--repair-cache", help="libcni's cache directory: pods that started without their rules are repaired in place"
    )
    parser.add_argument("--owner", help="API path of the DaemonSet: if it is gone when we end, so is the installation")
    return parser


def _run(args: argparse.Namespace) -> None:
    installation = Installation(args.cni_conf_dir, args.cni_bin_dir, _say) if args.cni_bin_dir else None
    reader = PodReader.in_cluster(args.account_dir)
    records, counters = Records(f"{args.dir}/pods"), Counters(args.at_once)
    features = detect()
    socket_path = f"{args.dir}/cni.sock"
    with open_listener(socket_path) as listener:
        duty = Duty(listener, reader, records, features, args.image, counters, _say)
        services: list[Callable[[Agent], None]] = [partial(_work, duty, number) for number in range(args.at_once)]
        if args.health_port is not None:
            health = probe.listen(args.health_port)
            services.append(partial(probe.serve, health, Probe(counters, socket_path, time.monotonic)))
        if args.repair_cache:
            services.append(partial(_repair, duty, args.repair_cache, f"{args.dir}/passed"))
        if installation is not None:
            installation.put_program(args.plugin)

        def look(pods: int) -> None:
            counters.turn(time.monotonic(), pods)
            if installation is not None:
                installation.look()

        Agent(records, Tasks(tuple(services), look, _say)).run()
    if installation is not None and args.owner:
        _leave(installation, partial(reader.is_gone, args.owner))


def _work(duty: Duty, number: int, agent: Agent) -> None:
    Worker(duty, agent, number).run()


def _repair(duty: Duty, cache: str, passed_dir: str, agent: Agent) -> None:
    """Look after pods that have not what they should, each second if something may have changed."""
    schedule, passed = Schedule(cache), PassedFiles(passed_dir)
    visit = Visit(duty, agent)
    edge = edge_of(cache, duty.features, duty.records, visit.edge(), duty.say)
    while not select.select([agent.lifeline], [], [], _LOOK_SECONDS)[0]:
        slipped, broken = schedule.due()
        if slipped:
            repair.find_slipped(duty.records, passed, edge)
        if broken:
            repair.find_broken(duty.records, edge)
        visit.close()


def _leave(installation: Installation, is_gone: Callable[[], bool | None]) -> None:
    """Take the plugin off the node if the DaemonSet is gone. While nobody can say, it is asked for again."""
    deadline = time.monotonic() + _GONE_SECONDS
    while (gone := is_gone()) is None and time.monotonic() < deadline:
        time.sleep(1)
    if gone is None:
        _say(
            "the API server does not say whether Weir is uninstalled: the plugin stays, and pods wait for the next agent"
        )
    elif gone:
        installation.remove()
        _say("Weir is uninstalled: the plugin is taken off this node")


def _raise_file_limit() -> None:
    """Two descriptors a pod."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(text: str) -> None:
    print(f"weir-node: {text}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
