"""`weir render`: the nftables text, or the compiled sidecar config, that policies come to. Changes nothing."""

import argparse

import msgspec

from weir_cli import policy_files
from weir_sidecar.contract import config
from weir_sidecar.netfilter import render as nft
from weir_sidecar.netfilter.features import Features


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    policy_files.add_argument(parser)
    parser.add_argument("--config", action="store_true", help="print the compiled sidecar config as JSON instead")


def run(args: argparse.Namespace) -> int:
    """Print one or the other, and nothing else: the text for a kernel with every feature. Status 2: a policy file is wrong."""
    compiled = policy_files.read_or_report(args.files)
    if compiled is None:
        return 2
    policy_files.report_notices(compiled)
    if args.config:
        print(msgspec.json.format(config.encode(compiled.config), indent=2).decode())
    else:
        print(nft.render(compiled.config, Features()), end="")
    return 0
