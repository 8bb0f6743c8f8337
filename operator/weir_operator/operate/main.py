"""`python -m weir_operator operate`: the process that keeps statuses, TrustExceptions and certificates. One replica."""

import argparse
import asyncio
import logging
import os
import signal
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from weir_operator import grammar
from weir_operator.kube.client import Client
from weir_operator.kube.kubeconfig import Access, KubeconfigError, find_access
from weir_operator.operate.certificates import OVERLAP
from weir_operator.operate.health import serving
from weir_operator.operate.keeper import Keeper, Names
from weir_operator.operate.metrics import Metrics
from weir_operator.operate.observed import Observed
from weir_operator.operate.pods import MissedReason
from weir_operator.operate.reconcile import Reconciler
from weir_operator.operate.repair import Choice, Mode

_log = logging.getLogger(__name__)


class Certificates(StrEnum):
    """Who makes the control plane's certificates. CertManager: somebody else does, and they are left alone."""

    SELF = "Self"
    CERT_MANAGER = "CertManager"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `operate`."""
    parser.add_argument("--namespace", default="weir-system", help="where Weir is installed (%(default)s)")
    parser.add_argument(
        "--excluded-namespaces",
        type=_names,
        default=frozenset({"kube-system"}),
        metavar="NAME,…",
        help="where the webhook is not asked, beside --namespace: pods there count nowhere (kube-system)",
    )
    parser.add_argument(
        "--certificates",
        type=Certificates,
        choices=list(Certificates),
        default=Certificates.SELF,
        help="who makes the serving certificate and puts its CA into the webhook configurations (%(default)s)",
    )
    parser.add_argument("--ca-secret", default="weir-ca", help="Secret for the CA (%(default)s)")
    parser.add_argument("--serving-secret", default="weir-serving", help="Secret for the certificate (%(default)s)")
    parser.add_argument(
        "--ca-overlap",
        type=_duration,
        default=OVERLAP,
        metavar="DURATION",
        help="how long a new CA is announced before it signs, and an old one trusted after (24h)",
    )
    parser.add_argument(
        "--cni-repair",
        type=Mode,
        choices=list(Mode),
        default=Mode.NONE,
        help="what is done about pods without rules; InPlace: by the agents of nodes (%(default)s)",
    )
    parser.add_argument(
        "--webhook-repair",
        type=Mode,
        choices=[Mode.NONE, Mode.LABEL, Mode.DELETE],
        default=Mode.NONE,
        help="what is done about pods that the webhook was not asked about (%(default)s)",
    )
    parser.add_argument("--evict-bare-pods", action="store_true", help="evict also pods that nothing makes anew")
    parser.add_argument("--evictions-per-minute", type=int, default=10, help="at most so many (%(default)s)")
    parser.add_argument("--deployment", default="weir-operator", help="owner of the Secrets (%(default)s)")
    parser.add_argument("--health-port", type=int, default=8080, help="/healthz, /readyz, /metrics (%(default)s)")
    parser.add_argument("--kubeconfig", help="outside of a cluster: how to reach one")


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf").setLevel(logging.ERROR)  # it is quiet about each object, and loud about its own
    try:
        access = find_access(os.environ, args.kubeconfig)
    except KubeconfigError as error:
        _log.error("%s", error)
        return 2
    asyncio.run(_operate(args, access))
    return 0


async def _operate(args: argparse.Namespace, access: Access) -> None:
    metrics = Metrics()
    async with Client(access) as client, serving(metrics, args.health_port):
        reconciler = Reconciler(client, _now, metrics, _choice(args))
        observed = Observed(
            client, access, args.namespace, args.excluded_namespaces | {args.namespace}, reconciler.touch
        )
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(observed.run()), tasks.create_task(reconciler.run(observed))]
            if args.certificates is Certificates.SELF:
                names = Names(args.namespace, args.ca_secret, args.serving_secret, args.deployment)
                keeper = Keeper(client, names, args.ca_overlap, _now, metrics)
                running.append(tasks.create_task(keeper.run()))
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, _cancel, running)


def _choice(args: argparse.Namespace) -> Choice:
    modes = {MissedReason.PLUGIN_MISSED: args.cni_repair, MissedReason.WEBHOOK_MISSED: args.webhook_repair}
    return Choice(modes, bare_pods=args.evict_bare_pods, per_minute=args.evictions_per_minute)


def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


def _now() -> datetime:
    return datetime.now(UTC)


def _duration(text: str) -> timedelta:
    try:
        return timedelta(seconds=grammar.duration(text))
    except grammar.UnreadableError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: {error}") from error


def _names(text: str) -> frozenset[str]:
    return frozenset(name for name in text.split(",") if name)
