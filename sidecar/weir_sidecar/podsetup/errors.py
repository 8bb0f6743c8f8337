"""What ends the set-up of a pod."""


class SetupError(Exception):
    """The pod could not be set up. The text names the thing, what was found, what is allowed, and what to do."""


class NoRulesError(SetupError):
    """Nobody has loaded the pod's rules, and it may not start without."""
