"""Gives a run its parts: policy files, capture rules, the sidecar's program. The one place that knows them all."""

import argparse
import sys
from pathlib import Path

from weir_cli import policy_files
from weir_cli.pod import session, sidecar
from weir_cli.pod.errors import SetupError
from weir_cli.pod.session import Options, Parts
from weir_operator.problems import PolicyError
from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.netfilter.literals import RulesetError
from weir_sidecar.netsetup import capture
from weir_sidecar.netsetup.errors import CaptureError

_BAD_POLICY = 2


def run(args: argparse.Namespace, argv: tuple[str, ...]) -> int:
    """Run the command as the arguments ask; returns the exit status."""
    compiled = policy_files.read_or_report(args.files)
    if compiled is None:
        return _BAD_POLICY
    options = Options(
        argv=argv,
        policies=tuple(args.files),
        record=Path(args.record) if args.record else None,
        state=Path(args.state) if args.state else None,
        user=args.user,
        name=args.name,
        quiet=args.quiet,
        restart=not args.no_restart,
    )
    if not options.quiet:
        policy_files.report_notices(compiled)
    parts = Parts(lambda: _load(options.policies), _apply, sidecar.program(sys.executable))
    return session.run(options, compiled.config, compiled.injection, parts)


def _load(files: tuple[str, ...]) -> SidecarConfig | str:
    """The policies anew, or what is wrong with them."""
    if policy_files.STDIN in files:
        return "policies that came from standard input cannot be read again"
    try:
        return policy_files.read(files).config
    except PolicyError as error:
        return "\n".join(map(str, error.problems))


def _apply(config: SidecarConfig) -> None:
    try:
        capture.apply(config)
    except (CaptureError, RulesetError) as error:
        raise SetupError(str(error)) from error
