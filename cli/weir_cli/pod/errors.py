"""The one failure that a set-up ends in."""


class SetupError(Exception):
    """The pod could not be made. The text says what was tried, what was found, and what to do next."""
