"""`weir run`: run a command in a captured pod on this machine."""

import argparse
import os
import shlex
import sys

SETUP_FAILED = 125


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options; everything from the first word that is not one, or after `--`, is the command."""
    parser.usage = "weir run [options] -- COMMAND [ARGUMENT]..."
    parser.add_argument(
        "-f",
        "--file",
        dest="files",
        action="append",
        default=[],
        metavar="FILE",
        help="policies in YAML, or - for standard input; may be given several times",
    )
    parser.add_argument("--record", metavar="FILE", help="write a flow record, one JSON object a line, for each flow")
    parser.add_argument("--state", metavar="DIR", help="keep the trust cache here from one run to the next")
    parser.add_argument(
        "--user", metavar="NAME", help="run the command as this user (default: who called, also by sudo)"
    )
    parser.add_argument("--name", metavar="NAME", help="the pod's name; its network namespace is weir-NAME")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument("--no-restart", action="store_true", help="leave the proxy dead when it dies")
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run")


def missing(system: str, uid: int, argv: list[str]) -> str | None:
    """What this machine or user lacks, in one line that says what to do; None: nothing that can be seen from here."""
    if system != "linux":
        return f"weir run needs Linux (namespaces, nftables, TPROXY) and this is {system}; run it in a Linux virtual machine"
    if uid != 0:
        again = shlex.join(["sudo", os.path.abspath(sys.argv[0]), *argv])  # noqa: PTH100 - must not follow links
        return f"weir run needs root to make a network namespace and load rules; run: {again}"
    return None


def command_line(args: argparse.Namespace) -> list[str]:
    """What to run; the `--` that may stand before it is not part of it."""
    words: list[str] = args.argv
    return words[1:] if words[:1] == ["--"] else words


def run(args: argparse.Namespace) -> int:
    """Returns the command's exit status; 125 when the set-up failed, 2 for bad policies."""
    argv = command_line(args)
    if not argv:
        return _fail("no command given; usage: weir run [options] -- COMMAND [ARGUMENT]...", SETUP_FAILED)
    lacking = missing(sys.platform, os.getuid() if hasattr(os, "getuid") else 0, sys.argv[1:])
    if lacking:
        return _fail(lacking, SETUP_FAILED)
    # What follows exists on Linux only.
    from weir_cli.pod import local  # noqa: PLC0415

    return local.run(args, tuple(argv))


def _fail(text: str, status: int) -> int:
    print(f"weir: {text}", file=sys.stderr)
    return status
