"""How set-up fails: a `CaptureError` says what was tried, what was found, and what to do."""

DOCTOR = "run `weir doctor` to see what is missing here"


class CaptureError(Exception):
    """Capture could not be set up or taken down. The text names the command, what it said, and what to do next."""

    def __init__(self, command: str, found: str, advice: str) -> None:
        super().__init__(f"{command}: {found}; {advice}")
        self.command = command
        self.found = found
        self.advice = advice
