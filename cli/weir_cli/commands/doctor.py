"""`weir doctor`: what this machine has of what `weir run` needs; `--clean` removes what a killed run left."""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("--clean", action="store_true", help="remove what runs that were killed have left")


def run(args: argparse.Namespace) -> int:
    """Returns 0 when all that is needed is there, else 1."""
    if sys.platform != "linux":
        print(f"MISSING Linux: this is {sys.platform}; run Weir in a Linux virtual machine")
        return 1
    # What follows exists on Linux only.
    from weir_cli.pod import probes  # noqa: PLC0415

    findings = probes.all_findings()
    for finding in findings:
        print(finding)
    status = 0 if all(finding.present for finding in findings if finding.needed) else 1
    return status or _leftovers(clean=args.clean)


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
