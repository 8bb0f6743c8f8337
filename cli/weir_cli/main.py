"""The program's entry: finds the command by its name and calls it.

Each command is a module of `weir_cli.commands` with `add_arguments(parser)` and `run(args) -> int`; it is imported only
when it is the one that was asked for, so that `weir explain` does not pay for what `weir run` needs.
"""

import argparse
import importlib
import sys
from pathlib import PurePath

PLUGIN = "kubectl-weir"
"""By this name kubectl finds the program: `kubectl weir …`."""

COMMANDS = {
    "run": "run a command in a captured pod on this machine",
    "render": "print the nftables text, or the compiled config, of policies",
    "explain": "say what would happen to a flow, and which rule says so",
    "flows": "show flow records",
    "status": "show a cluster's policies and how many pods they reach",
    "exceptions": "list, approve, pin or forget what the trust cache learned",
    "doctor": "check what this machine, or with --cluster a cluster, has and what it lacks",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command that the arguments name; returns the exit status."""
    program = "kubectl weir" if PurePath(sys.argv[0]).name == PLUGIN else "weir"
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog=program, description="A transparent interceptor that fails open.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = argv[0] if argv and argv[0] in COMMANDS else None
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == wanted:
            command = importlib.import_module(f"weir_cli.commands.{name}")
            command.add_arguments(sub)
            sub.set_defaults(run=command.run)
    args = parser.parse_args(argv)
    status: int = args.run(args)
    return status
