"""What DNS told this pod: which name an address has, and which addresses a name was given.

Bounded in names and in addresses; the longest not told again go first. Addresses are text as `inet_ntop` writes it.
"""

from collections import OrderedDict
from collections.abc import Iterable

MIN_TTL = 300.0
"""Seconds. Clients connect to an address for a while after its TTL, so a shorter one is kept this long."""
MAX_TTL = 86400.0
MAX_NAMES = 8192
MAX_ADDRESSES = 16384
ADDRESSES_PER_NAME = 64


class LearnedNames:
    """Names and addresses from DNS answers, each until its TTL ends. Times are monotonic seconds."""

    __slots__ = ("_addresses", "_names")

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()
        self._names: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def learn(self, name: str, addresses: Iterable[str], ttl: float, now: float) -> None:
        """DNS answered a query for `name` with `addresses`, good for `ttl` seconds."""
        until = now + min(max(ttl, MIN_TTL), MAX_TTL)
        given = self._addresses.get(name)
        if given is None:
            given = self._addresses[name] = OrderedDict()
        self._addresses.move_to_end(name)
        for address in addresses:
            given[address] = until
            given.move_to_end(address)
            self._names[address] = (name, until)
            self._names.move_to_end(address)
        while len(given) > ADDRESSES_PER_NAME:
            given.popitem(last=False)
        while len(self._addresses) > MAX_NAMES:
            self._addresses.popitem(last=False)
        while len(self._names) > MAX_ADDRESSES:
            self._names.popitem(last=False)

    def name_of(self, address: str, now: float) -> str | None:
        """The name whose answer last gave `address`; None when no answer did, or none that is still good."""
        known = self._names.get(address)
        return known[0] if known is not None and now < known[1] else None

    def gave(self, host: str, address: str, now: float) -> bool | None:
        """Whether DNS gave `address` for `host`; None when it told nothing about `host` that is still good."""
        given = self._addresses.get(host)
        if given is None:
            return None
        if now < given.get(address, now):
            return True
        return False if any(now < until for until in given.values()) else None
