"""`python -m weir_sidecar`: starts the sidecar in the network namespace it is in.

Started as root it takes what it needs and becomes the config's user; started as another user it keeps what it has.
"""

import sys

# OpenSSL comes with pyOpenSSL. The standard library's bindings to a second one would be imported on the way (by asyncio and
# hashlib), never be used, and cost every pod 8 MiB; both modules do without when they cannot be imported.
sys.modules["ssl"] = None  # type: ignore[assignment]
sys.modules["_hashlib"] = None  # type: ignore[assignment]

from OpenSSL import crypto  # noqa: E402

from weir_sidecar.certs.bundle import BundleError  # noqa: E402
from weir_sidecar.contract.config import ConfigError  # noqa: E402
from weir_sidecar.edge import sidecar  # noqa: E402
from weir_sidecar.edge.command_line import UsageError, read_options, usage  # noqa: E402
from weir_sidecar.edge.listeners import ListenError  # noqa: E402
from weir_sidecar.edge.privileges import PrivilegeError  # noqa: E402


def main() -> int:
    """Read the arguments and run."""
    if "--help" in sys.argv[1:]:
        sys.stdout.write(usage())
        return 0
    try:
        return sidecar.run(read_options(sys.argv[1:]))
    except UsageError as error:
        sys.stderr.write(f"{usage()}weir-sidecar: {error}\n")
        return 2
    except (ConfigError, ListenError, PrivilegeError, BundleError, crypto.Error, OSError) as error:
        sidecar.say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
