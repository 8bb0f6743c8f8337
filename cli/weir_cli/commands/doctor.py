"""`weir doctor`: what this machine has of what `weir run` needs, or with `--cluster` a cluster of what Weir needs there.

`--clean` removes what a killed run left.
"""

import argparse
import sys
from collections.abc import Iterable

from weir_cli.cluster import checks, kubectl
from weir_cli.finding import Finding
from weir_cli.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--clean", action="store_true", help="remove what runs that were killed have left")
    what.add_argument("--cluster", action="store_true", help="look at the cluster of kubectl's current context")
    kubectl.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Returns 0 when all that is needed is there, else 1."""
    if args.cluster:
        return _report(checks.all_findings(kubectl.from_arguments(args)))
    if sys.platform != "linux":
        print(f"MISSING Linux: this is {sys.platform}; run Weir in a Linux virtual machine")
        return 1
    # What follows exists on Linux only.
    from weir_cli.pod import probes  # noqa: PLC0415

    return _report(probes.all_findings()) or _leftovers(clean=args.clean)


def _report(findings: Iterable[Finding]) -> int:
    """Print what was found, as it is found. Status 1: something needed is missing."""
    status = 0
    for finding in findings:
        print(printable(str(finding)), flush=True)
        status = status or int(finding.needed and not finding.present)
    return status


def _leftovers(*, clean: bool) -> int:
    from weir_cli.pod import cleanup, ledger  # noqa: PLC0415

    with ledger.exclusive():
        if clean:
            for removed in cleanup.remove_stale():
                print(f"removed {removed}")
        else:
            for found in cleanup.leftovers():
                print(f"left by a killed run: {found}; `weir doctor --clean` removes it")
    return 0
