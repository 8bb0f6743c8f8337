"""`python -m weir_sidecar.podsetup`: sets up the pod in whose network namespace it runs, and ends.

The last line on standard output says what was done and how long the pod was held up; an error is one line on standard
error, and the exit status 1.
"""

import argparse
import os
import sys
import time

# As the sidecar does: the standard library's OpenSSL is a second one, slow to load and of no use here.
sys.modules["ssl"] = None  # type: ignore[assignment]
sys.modules["_hashlib"] = None  # type: ignore[assignment]

from weir_sidecar.contract import pod as paths  # noqa: E402
from weir_sidecar.edge import clocks  # noqa: E402
from weir_sidecar.podsetup import setup  # noqa: E402
from weir_sidecar.podsetup.errors import NoRulesError, SetupError  # noqa: E402


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(
        prog="weir-init",
        description="Prepares a pod: the kernel's rules, the CA, and what applications need to trust it.",
    )
    parser.add_argument("--info-dir", default=paths.INFO, help="has config.json, the pod's annotation weir.dev/config")
    parser.add_argument("--pod-dir", default=paths.PRIVATE, help="volume of the sidecar: run/ is made in it")
    parser.add_argument("--trust-dir", default=paths.TRUST, help="volume that the application reads")
    args = parser.parse_args()
    places = setup.Places(args.info_dir, args.pod_dir, args.trust_dir)
    began = _began()
    try:
        done = setup.run(places, setup.edge_of(clocks.utc, _say))
    except NoRulesError as error:
        _say(str(error))
        return paths.NO_RULES_STATUS
    except (SetupError, OSError) as error:
        _say(str(error))
        return 1
    print(f"ready in {time.clock_gettime(time.CLOCK_BOOTTIME) - began:.2f} s: {done}", flush=True)  # noqa: T201
    return 0


def _say(text: str) -> None:
    print(f"weir-init: {text}", file=sys.stderr, flush=True)  # noqa: T201


def _began() -> float:
    """When this process began, in seconds since the machine did: proc_pid_stat(5), field 22. Loading Python counts too."""
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - pathlib is slow to import
        after_name = file.read().rpartition(b")")[2].split()
    return int(after_name[19]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
