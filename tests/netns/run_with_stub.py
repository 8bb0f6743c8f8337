"""`weir run` with the stub for a sidecar: what is tested is the pod."""

import argparse
import sys
from pathlib import Path
from unittest import mock

from weir_cli.commands import run
from weir_cli.pod import sidecar

STUB = Path(__file__).with_name("stub_sidecar.py")

parser = argparse.ArgumentParser()
run.add_arguments(parser)
with mock.patch.object(sidecar, "program", lambda interpreter: (interpreter, "-I", str(STUB))):
    sys.exit(run.run(parser.parse_args()))
