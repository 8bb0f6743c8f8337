"""`python -m weir_sidecar`: starts the sidecar in the network namespace it is in.

Started as root it takes what it needs and becomes the config's user; started as another user it keeps what it has.
"""

import argparse
import os
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
from weir_sidecar.edge.opening import Options  # noqa: E402
from weir_sidecar.edge.privileges import PrivilegeError  # noqa: E402
from weir_sidecar.edge.stream_client import PodIdentity  # noqa: E402


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="weir-sidecar", description="The data path of Weir, in one pod.")
    parser.add_argument("--run-dir", required=True, help="tmpfs with config.json; ca.key and ca.crt are made there")
    parser.add_argument("--state-dir", required=True, help="where trust.json and control.sock live")
    parser.add_argument("--record", help="append flow records to this file, one JSON object a line; -: standard output")
    parser.add_argument("--ready-fd", type=int, help="write a line to this descriptor when flows are served")
    parser.add_argument(
        "--started-config", help="the config whose rules the kernel has, where config.json may be a later one"
    )
    parser.add_argument(
        "--token-file", help="the token for the config stream; WEIR_POD_NAMESPACE, WEIR_POD_NAME: whose"
    )
    parser.add_argument("--group", type=int, help="the only supplementary group to keep, which may read the token")
    args = parser.parse_args()
    try:
        options = Options(
            run_dir=args.run_dir,
            state_dir=args.state_dir,
            record=args.record,
            ready_fd=args.ready_fd,
            started_config=args.started_config,
            pod=None if args.token_file is None else _pod(args.token_file),
            group=args.group,
        )
        return sidecar.run(options)
    except (ConfigError, ListenError, PrivilegeError, BundleError, crypto.Error, OSError) as error:
        sidecar.say(str(error))
        return 1


def _pod(token_file: str) -> PodIdentity:
    names = {name: os.environ.get(name, "") for name in ("WEIR_POD_NAMESPACE", "WEIR_POD_NAME")}
    try:
        return PodIdentity(names["WEIR_POD_NAMESPACE"], names["WEIR_POD_NAME"], token_file)
    except ValueError as error:
        raise ConfigError(f"--token-file needs {' and '.join(names)} in the environment: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
