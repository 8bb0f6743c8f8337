"""Runs nft; every failure is a `CaptureError` that says what was run, what it said and what to do."""

import subprocess

_PACKAGES = {"nft": "nftables", "ip": "iproute2"}
_SECONDS = 30


class CaptureError(Exception):
    """Capture could not be set up or taken down. The text names the command, what it said, and what to do next."""

    def __init__(self, command: str, found: str, advice: str) -> None:
        super().__init__(f"{command}: {found}; {advice}")
        self.command = command
        self.found = found
        self.advice = advice


def run(*command: str, stdin: str = "", advice: str = "run `weir doctor` to see what is missing here") -> str:
    """Run a program to its end and return what it printed. Raises `CaptureError`."""
    shown = " ".join(command)
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError as error:
        package = _PACKAGES.get(command[0], command[0])
        raise CaptureError(shown, f"{command[0]} is not installed", f"install the package {package}") from error
    except subprocess.TimeoutExpired as error:
        raise CaptureError(shown, f"no answer within {_SECONDS} s", advice) from error
    if done.returncode:
        said = " / ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
        raise CaptureError(shown, said or f"exit status {done.returncode}", advice)
    return done.stdout
