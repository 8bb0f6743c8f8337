"""`python -m weir_sidecar`: starts the sidecar in the network namespace it is in.

Started as root it takes what it needs and becomes the config's user; started as another user it keeps what it has.
"""

import argparse
import sys

# OpenSSL comes with pyOpenSSL. The standard library's bindings to a second one would be imported on the way (by asyncio and
# hashlib), never be used, and cost every pod 8 MiB; both modules do without when they cannot be imported.
sys.modules["ssl"] = None  # type: ignore[assignment]
sys.modules["_hashlib"] = None  # type: ignore[assignment]

from OpenSSL import crypto  # noqa: E402

from weir_sidecar.certs.bundle import BundleError  # noqa: E402
from weir_sidecar.contract.config import ConfigError  # noqa: E402
from weir_sidecar.edge import sidecar  # noqa: E402
from weir_sidecar.edge.listeners import ListenError  # noqa: E402
from weir_sidecar.edge.privileges import PrivilegeError  # noqa: E402


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="weir-sidecar", description="The data path of Weir, in one pod.")
    parser.add_argument("--run-dir", required=True, help="tmpfs with config.json; ca.key and ca.crt are made there")
    parser.add_argument("--state-dir", required=True, help="where trust.json and control.sock live")
    parser.add_argument("--record", help="append flow records to this file, one JSON object a line")
    parser.add_argument("--ready-fd", type=int, help="write a line to this descriptor when flows are served")
    args = parser.parse_args()
    try:
        return sidecar.run(sidecar.Options(args.run_dir, args.state_dir, args.record, args.ready_fd))
    except (ConfigError, ListenError, PrivilegeError, BundleError, crypto.Error, OSError) as error:
        sidecar.say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
