"""`python -m weir_sidecar.node`: the agent of one node, until SIGTERM. Errors are lines on standard error.

When it ends and its DaemonSet stays (an upgrade, a crash), so does the plugin: pods wait for the next agent. When the
DaemonSet goes, the plugin goes.
"""

import argparse
import os
import resource
import socket
import sys
import time
from functools import partial

from weir_sidecar.netfilter.features import Features
from weir_sidecar.netsetup import capture
from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.netsetup.features import detect
from weir_sidecar.node import exchange, namespaces, plugin
from weir_sidecar.node.agent import Agent, Tasks, open_listener
from weir_sidecar.node.install import Installation
from weir_sidecar.node.pods import ACCOUNT, PodReader, config_to_apply
from weir_sidecar.node.records import Record, Records


def main() -> int:
    """Parse the arguments and run."""
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
    parser.add_argument("--at-once", type=int, default=2 * (os.cpu_count() or 1), help="pods to set up at a time")
    parser.add_argument(
        "--plugin", default="/opt/weir/cni/weir-cni", help="the plugin's program, to be put on the node"
    )
    parser.add_argument("--cni-bin-dir", help="where the node keeps plugins; without it nothing is installed")
    parser.add_argument("--cni-conf-dir", help="where the container runtime finds its network configuration")
    parser.add_argument("--owner", help="API path of the DaemonSet: if it is gone when we end, so is the installation")
    args = parser.parse_args()
    _raise_file_limit()
    installation = Installation(args.cni_conf_dir, args.cni_bin_dir, _say) if args.cni_bin_dir else None
    try:
        reader = PodReader.in_cluster(args.account_dir)
        records = Records(f"{args.dir}/pods")
        serve = partial(_serve, reader=reader, records=records, features=detect(), image=args.image)
        listener = open_listener(f"{args.dir}/cni.sock")
        if installation is not None:
            installation.put_program(args.plugin)
        tasks = Tasks(serve, installation.look if installation else _nothing, _say)
        Agent(listener, records, tasks, args.at_once).run()
        if installation is not None and args.owner and reader.is_gone(args.owner):
            installation.remove()
            _say("Weir is uninstalled: the plugin is taken off this node")
    except KeyError as error:
        _say(f"{error} is not in the environment: this program runs in a pod of Kubernetes")
        return 1
    except (CaptureError, OSError) as error:
        _say(str(error))
        return 1
    return 0


def _serve(  # noqa: PLR0913 - all that a request needs
    connection: socket.socket, agent: Agent, *, reader: PodReader, records: Records, features: Features, image: str
) -> None:
    """One request of the plugin, in a child."""

    def enter(path: str) -> None:
        namespaces.enter_network(namespaces.open_netns(path))

    began = time.monotonic()

    def listen(record: Record) -> None:
        agent.listen_for(record.container_id)
        _say(f"captured pod {record.namespace}/{record.name} in {(time.monotonic() - began) * 1000:.0f} ms")

    edge = plugin.Edge(
        config_of=lambda sandbox: config_to_apply(reader.read(sandbox), sandbox, image),
        enter=enter,
        apply=lambda config: capture.apply(config, features),
        check=lambda config: capture.check(config, features),
        listen=listen,
        forget=agent.forget,
    )
    exchange.serve(connection, lambda request: plugin.answer(request, records, edge))


def _nothing() -> None:
    """There is no installation to look after."""


def _raise_file_limit() -> None:
    """Two descriptors a pod."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(text: str) -> None:
    print(f"weir-node: {text}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
