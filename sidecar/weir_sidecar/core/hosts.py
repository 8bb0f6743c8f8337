"""Host patterns compiled to look-ups: exact names, `*.example.com` (any depth below, not the name itself) and `*`."""

from collections.abc import Iterable


class HostIndex:
    """Which of many numbered pattern lists a name matches.

    A name costs one dictionary look-up and one more for each of its labels, however many patterns there are.
    Patterns and names are lower case, A-labels, without a final dot (the compiler and the parsers see to it).
    """

    __slots__ = ("_any", "_below", "_exact")

    def __init__(self, lists: Iterable[tuple[int, Iterable[str]]]) -> None:
        every: list[int] = []
        exact: dict[str, list[int]] = {}
        below: dict[str, list[int]] = {}
        for number, patterns in lists:
            for pattern in patterns:
                if pattern == "*":
                    every.append(number)
                elif pattern.startswith("*."):
                    below.setdefault(pattern[2:], []).append(number)
                else:
                    exact.setdefault(pattern, []).append(number)
        self._any = tuple(every)
        self._exact = {host: tuple(numbers) for host, numbers in exact.items()}
        self._below = {host: tuple(numbers) for host, numbers in below.items()}

    def find(self, host: str) -> list[int]:
        """The numbers whose patterns match `host`, in no particular order, possibly more than once."""
        found = list(self._any)
        found += self._exact.get(host, ())
        if self._below:
            dot = host.find(".")
            while dot >= 0:
                found += self._below.get(host[dot + 1 :], ())
                dot = host.find(".", dot + 1)
        return found
