"""Calls `ip` and `nft`, and turns their failure into one clear line."""

import subprocess
from collections.abc import Sequence

from weir_cli.pod.errors import SetupError

_PACKAGES = {"ip": "iproute2", "nft": "nftables"}


def call(argv: Sequence[str], text: str | None = None) -> str:
    """What the program prints, given `text`. Raises `SetupError` with what it complained about."""
    done = attempt(argv, text)
    if done.returncode:
        complaint = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise SetupError(f"`{' '.join(argv)}` failed: {complaint[0]}")
    return done.stdout


def attempt(argv: Sequence[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    """The same where failure is an answer: removal of what may not be there, a probe."""
    try:
        return subprocess.run(argv, input=text or "", capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        package = _PACKAGES.get(argv[0], argv[0])
        raise SetupError(f"the program {argv[0]!r} is not installed; on Debian: apt install {package}") from error
