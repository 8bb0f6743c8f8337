"""`weir run` with the stub for a sidecar: what is tested is the pod. The stub cannot hold a SYN, so it is not asked to."""

import argparse
import sys
from pathlib import Path
from unittest import mock

from msgspec.structs import replace

from weir_cli import policy_files
from weir_cli.commands import run
from weir_cli.pod import sidecar

STUB = Path(__file__).with_name("stub_sidecar.py")
read_policies = policy_files.read


def read(files):
    compiled = read_policies(files)
    capture = replace(compiled.config.capture, connect_first=False)
    return replace(compiled, config=replace(compiled.config, capture=capture))


parser = argparse.ArgumentParser()
run.add_arguments(parser)
with (
    mock.patch.object(sidecar, "program", lambda interpreter: (interpreter, "-I", str(STUB))),
    mock.patch.object(policy_files, "read", read),
):
    sys.exit(run.run(parser.parse_args()))
