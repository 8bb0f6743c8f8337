"""The control plane's processes: `python -m weir_operator serve` and `python -m weir_operator operate`."""

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "serve": ("weir_operator.serving.main", "admission of pods, and the config stream; any number of replicas"),
    "operate": ("weir_operator.operate.main", "statuses, certificates, exceptions' ends; exactly one replica"),
}
"""The module of each, with `add_arguments(parser)` and `run(arguments) -> exit status`, and what it is for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; the exit status. Raises SystemExit where argparse does."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m weir_operator", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    # Only the module of the command in question is loaded: kopf, for one, is no part of `serve`.
    for command, (module, text) in COMMANDS.items():
        one = commands.add_parser(command, help=text)
        if command in given[:1]:
            importlib.import_module(module).add_arguments(one)
    options = parser.parse_args(given)
    status: int = importlib.import_module(COMMANDS[options.command][0]).run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
