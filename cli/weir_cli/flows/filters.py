"""The filter language of `weir flows`, in the manner of GitHub's search: `host:*.example.com status:>=500 -path:/health`.

    filter  = term {space term}            all must hold
    term    = ["-"] (key ":" values | text)  "-": must not hold
    values  = value {"," value}            any one
    value   = ["*" is any run of characters, "?" any one, both as themselves within double quotes]
    number  = [">" | ">=" | "<" | "<="] N, or N..M, or 4xx; K, M and G are powers of 1024; "*": there is one

A text without a key is looked for in all that a row shows. A field that a record does not have matches nothing, so that
its negation matches. Upper and lower case are alike. docs/flows.md tells users the same.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable

import msgspec

from weir_cli.flows.fields import FIELDS, Field, Kind, Value, texts
from weir_cli.flows.told import Told


class FilterError(Exception):
    """A filter that cannot be read; the text names the word, says what is wrong with it and what is allowed."""


type _Test = Callable[[Value], bool]
type _Word = list[tuple[str, bool]]
"""Characters, each with whether it stood within quotes."""


class _Term(msgspec.Struct, frozen=True):
    """One condition: any of the tests holds for any of what `get` gives; or, if `negated`, none for any."""

    negated: bool
    get: Callable[[Told], Iterable[Value]]
    tests: tuple[_Test, ...]

    def matches(self, told: Told) -> bool:
        values = self.get(told)
        return any(test(value) for value in values if value is not None for test in self.tests) != self.negated


class Filter(msgspec.Struct, frozen=True):
    """What records must be like. Without terms: any."""

    text: str = ""
    terms: tuple[_Term, ...] = ()

    def matches(self, told: Told) -> bool:
        """Whether the record is as the filter says."""
        return all(term.matches(told) for term in self.terms)


def parse(text: str) -> Filter:
    """The filter that the text says. Raises `FilterError`."""
    return Filter(text.strip(), tuple(_term(word) for word in _words(text)))


def _words(text: str) -> list[_Word]:
    """Divide at spaces, but not within double quotes; a backslash takes the next character as it is, there."""
    words: list[_Word] = []
    word: _Word | None = None
    quoted = False
    characters = iter(text)
    for character in characters:
        if character.isspace() and not quoted:
            word = None
            continue
        if word is None:
            word = []
            words.append(word)
        if character == '"':
            quoted = not quoted
            # A mark that something was quoted here, so that "" is a word too, and "a:b" a text.
            word.append(("", True))
        elif character == "\\" and quoted:
            word.append((next(characters, ""), True))
        else:
            word.append((character, quoted))
    if quoted:
        raise FilterError(f"{text!r}: a quote is not closed")
    return words


def _plain(word: _Word) -> str:
    return "".join(character for character, _ in word)


def _term(word: _Word) -> _Term:
    negated = word[0] == ("-", False)
    body = word[1:] if negated else word
    if not _plain(body):
        raise FilterError(f"{_plain(word)!r}: there is nothing to look for")
    if (":", False) not in body or body[0][1]:
        return _Term(negated, texts, (_contains(_plain(body)),))
    colon = body.index((":", False))
    key, values = _plain(body[:colon]), body[colon + 1 :]
    field = FIELDS.get(key.lower())
    if field is None:
        raise FilterError(f"{key!r} is no field; there are {', '.join(FIELDS)}; or quote text that has a colon")
    return _Term(negated, field.get, tuple(_test(key, field, value) for value in _divided(values)))


def _divided(word: _Word) -> list[_Word]:
    values: list[_Word] = [[]]
    for character in word:
        if character == (",", False):
            values.append([])
        else:
            values[-1].append(character)
    return values


def _contains(text: str) -> _Test:
    wanted = text.casefold()
    return lambda value: wanted in str(value).casefold()


def _test(key: str, field: Field, value: _Word) -> _Test:
    if not _plain(value):
        raise FilterError(f"{key}: a value is missing; {field.summary}: {key}:VALUE, or {key}:* for any")
    if value == [("*", False)]:
        return lambda _: True
    return _KINDS[field.kind](key, field, value)


def _glob(_key: str, _field: Field, value: _Word) -> _Test:
    wild = {("*", False): ".*", ("?", False): "."}
    pattern = "".join(wild.get(one) or re.escape(one[0]) for one in value)
    matches = re.compile(re.sub(r"(\.\*)+", ".*", pattern), re.IGNORECASE | re.DOTALL).fullmatch
    return lambda text: matches(str(text)) is not None


def _one_of(key: str, field: Field, value: _Word) -> _Test:
    test = _glob(key, field, value)
    if not any(test(word) for word in field.words):
        raise FilterError(f"{key}: found {_plain(value)!r}; allowed: {', '.join(field.words)}")
    return test


_NUMBER = r"([0-9]+(?:\.[0-9]+)?)([kmgKMG]?)"
_COMPARED = re.compile(rf"(>=|<=|>|<|){_NUMBER}")
_RANGE = re.compile(rf"{_NUMBER}\.\.{_NUMBER}")
_HUNDRED = re.compile(r"([1-9])[xX]{2}")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}


def _number(key: str, _field: Field, value: _Word) -> _Test:
    text = _plain(value)
    if found := _COMPARED.fullmatch(text):
        return _compared(found[1], _amount(found[2], found[3]))
    if found := _RANGE.fullmatch(text):
        low, high = _amount(found[1], found[2]), _amount(found[3], found[4])
        return lambda number: low <= _float(number) <= high
    if found := _HUNDRED.fullmatch(text):
        first = int(found[1])
        return lambda number: _float(number) // 100 == first
    raise FilterError(f"{key}: found {text!r}; allowed: a number, >=N, >N, <=N, <N, N..M, 4xx, or *")


def _amount(number: str, unit: str) -> float:
    return float(number) * 1024.0 ** _POWERS[unit.lower()]


def _float(value: Value) -> float:
    assert isinstance(value, int | float)  # the fields of this kind have no others
    return value


def _compared(operator: str, limit: float) -> _Test:
    tests: dict[str, _Test] = {
        ">=": lambda number: _float(number) >= limit,
        "<=": lambda number: _float(number) <= limit,
        ">": lambda number: _float(number) > limit,
        "<": lambda number: _float(number) < limit,
        "": lambda number: _float(number) == limit,
    }
    return tests[operator]


def _network(key: str, _field: Field, value: _Word) -> _Test:
    text = _plain(value)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise FilterError(f"{key}: found {text!r}; allowed: an address, or a network such as 10.0.0.0/8") from None
    return lambda address: _within(str(address), network)


def _within(address: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False  # what a record says is not Weir's to vouch for: anybody may have written the file


_KINDS: dict[Kind, Callable[[str, Field, _Word], _Test]] = {
    Kind.TEXT: _glob,
    Kind.WORD: _one_of,
    Kind.NUMBER: _number,
    Kind.ADDRESS: _network,
}
