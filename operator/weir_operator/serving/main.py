"""`python -m weir_operator serve`: the command line of the serving process."""

import argparse
import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from weir_operator.kube.client import Client
from weir_operator.kube.kubeconfig import Access, KubeconfigError, find_access
from weir_operator.serving import log
from weir_operator.serving.server import DRAIN_SECONDS, Options, Serving, read_settings
from weir_operator.serving.summary import Replica

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `serve`."""
    parser.add_argument("--namespace", default="weir-system", help="where Weir is installed (%(default)s)")
    parser.add_argument("--image", required=True, help="of the sidecar and the init container of captured pods")
    parser.add_argument("--webhook-port", type=int, default=8443, help="admission, over TLS (%(default)s)")
    parser.add_argument("--stream-port", type=int, default=8444, help="the config stream, over TLS (%(default)s)")
    parser.add_argument("--health-port", type=int, default=8080, help="/healthz, /readyz, /metrics (%(default)s)")
    parser.add_argument("--stream-service", default="weir-stream", help="by which sidecars come (%(default)s)")
    parser.add_argument("--serving-secret", default="weir-serving", help="Secret with the certificate (%(default)s)")
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="JSON with pullPolicy, imagePullSecrets, initResources, sidecarResources, setup of captured pods' containers",
    )
    parser.add_argument(
        "--drain",
        type=float,
        default=DRAIN_SECONDS,
        metavar="SECONDS",
        help="how long to go on serving after SIGTERM (%(default)s)",
    )
    parser.add_argument("--kubeconfig", help="outside of a cluster: how to reach one")


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status. The environment has POD_NAME and POD_UID in a pod."""
    log.set_up()
    try:
        access = find_access(os.environ, arguments.kubeconfig)
        settings = replace(read_settings(arguments.image, arguments.settings), api_server=find_api_server(os.environ))
    except (KubeconfigError, OSError) as error:
        _log.error("%s", error)
        return 2
    except msgspec.MsgspecError as error:
        _log.error("--settings %s: %s", arguments.settings, error)
        return 2
    pod, uid = os.environ.get("POD_NAME"), os.environ.get("POD_UID")
    options = Options(
        namespace=arguments.namespace,
        settings=settings,
        stream_service=arguments.stream_service,
        serving_secret=arguments.serving_secret,
        webhook_port=arguments.webhook_port,
        stream_port=arguments.stream_port,
        health_port=arguments.health_port,
        replica=Replica(arguments.namespace, pod, uid) if pod and uid else None,
        drain_seconds=arguments.drain,
    )
    asyncio.run(_serve(access, options))
    return 0


def find_api_server(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Where pods find the API server: what the kubelet tells every container; None: this is no container of a cluster."""
    host = environ.get("KUBERNETES_SERVICE_HOST")
    return None if host is None else (host, int(environ.get("KUBERNETES_SERVICE_PORT", "443")))


async def _serve(access: Access, options: Options) -> None:
    async with Client(access) as client:
        await Serving(client, options).run()
