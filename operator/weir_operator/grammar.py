"""The small grammars inside policies: ports, IDs, durations, host patterns, CIDRs, names. Text in, values out."""

import re
from collections.abc import Callable
from decimal import Decimal
from ipaddress import ip_address, ip_network

from weir_sidecar.contract.config import IDRange, PortRange

MAX_ID = 2**32 - 2
MAX_DURATION = 10 * 366 * 86400
"""Ten years in seconds."""

_RANGE = re.compile(r"(0|[1-9][0-9]{0,9})(?:-(0|[1-9][0-9]{0,9}))?", re.ASCII)
_DURATION = re.compile(r"(?:[0-9]{1,10}(?:\.[0-9]{1,9})?(?:ms|h|m|s))+", re.ASCII)
_DURATION_PART = re.compile(r"([0-9.]+)(ms|h|m|s)", re.ASCII)
_UNITS = {"h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*", re.ASCII)
_RULE_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)
_INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}|[A-Za-z0-9_.@-]{1,14}\*", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"([!-~]([ -~]*[!-~])?)?", re.ASCII)
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/(\*|[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*)", re.ASCII)
_PATH = re.compile(r"[!-~]+", re.ASCII)
_JA4 = re.compile(r"[tqd](1[0-3]|s[1-3]|d[1-3]|00)[di][0-9]{4}[0-9a-z]{2}_[0-9a-f]{12}_[0-9a-f]{12}", re.ASCII)


class UnreadableError(ValueError):
    """The text is not of the grammar; the message says what is allowed."""


def ports(value: float | str) -> PortRange:
    """A port (443) or a range ("8000-8100")."""
    first, last = _range(value, 1, 65535, 'a port from 1 to 65535, or a range such as "8000-8100"')
    return PortRange(first, last)


def ids(value: float | str) -> IDRange:
    """A UID or GID (1000) or a range ("1000-1999")."""
    first, last = _range(value, 0, MAX_ID, f'a number from 0 to {MAX_ID}, or a range such as "1000-1999"')
    return IDRange(first, last)


def duration(value: float | str) -> float:
    """Seconds, from a number of them or from a duration as Kubernetes writes it ("1h30m", "90s", "500ms")."""
    allowed = "a duration such as 90s, 30m or 1h30m, or a number of seconds, more than 0 and at most ten years"
    if isinstance(value, str):
        if not _DURATION.fullmatch(value):
            raise UnreadableError(allowed)
        seconds = float(sum(Decimal(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(value)))
    else:
        seconds = float(value)
    if not 0 < seconds <= MAX_DURATION:
        raise UnreadableError(allowed)
    return seconds


def share(value: float | str) -> float:
    """A part of a whole, as a number from 0 to 1."""
    if isinstance(value, str) or not 0 <= value <= 1:
        raise UnreadableError("a number from 0 (none) to 1 (all), such as 0.1 for one in ten")
    return float(value)


def host(text: str) -> str:
    """A host pattern: a name, `*.` and a name, or `*`; in lower case and without its final dot."""
    allowed = 'a host name, "*.example.com" for all names below it, or "*"'
    pattern = text.lower().removesuffix(".")
    name = pattern.removeprefix("*.")
    if not text.isascii():
        raise UnreadableError(f"{allowed}; write an international name in its ASCII form (xn--…)")
    if _is_address(name):
        raise UnreadableError(f"{allowed}; an address belongs in cidrs")
    if "/" in text or ":" in text:
        raise UnreadableError(f"{allowed}; no scheme, path or port (a port belongs in ports)")
    if pattern == "*" or (len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))):
        return pattern
    raise UnreadableError(allowed)


def subject_host(text: str) -> str:
    """What trust is learned about: one host name, an address where no name is known, or `*`, every host of a client."""
    if _is_address(text):
        return address(text)
    if text != "*" and text.startswith("*"):
        raise UnreadableError('one host name, an address, or "*" alone')
    return host(text)


def cidr(text: str) -> str:
    """A network, or an address as the network of that one address; in its canonical form."""
    try:
        return str(ip_network(text))
    except ValueError:
        pass
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise UnreadableError('an address or network such as "192.0.2.7", "10.0.0.0/8" or "2001:db8::/32"') from None
    raise UnreadableError(f'the network without host bits, which is "{network}"')


def address(text: str) -> str:
    """An IPv4 or IPv6 address."""
    if not _is_address(text):
        raise UnreadableError('an address such as "192.0.2.53" or "2001:db8::53"')
    return str(ip_address(text))


def name(text: str) -> str:
    """The name of a Kubernetes object."""
    if len(text) <= 253 and _NAME.fullmatch(text):
        return text
    raise UnreadableError("a name of lower-case letters, digits, - and ., that begins and ends with a letter or digit")


def rule_name(text: str) -> str:
    """The name of a rule, as records print it."""
    if _RULE_NAME.fullmatch(text):
        return text
    raise UnreadableError("at most 63 letters, digits, -, _ and ., that begin and end with a letter or digit")


def interface(text: str) -> str:
    """The name of a network interface; a final * stands for any ending."""
    if _INTERFACE.fullmatch(text):
        return text
    raise UnreadableError("an interface name of at most 15 letters, digits and _ . @ -, or its beginning and *")


def ja4(text: str) -> str:
    """A JA4 fingerprint."""
    if _JA4.fullmatch(text):
        return text
    raise UnreadableError("a JA4 fingerprint such as t13d1516h2_8daaf6152771_02713d6af862")


def method(text: str) -> str:
    """An HTTP method, as it is sent: methods are case-sensitive (RFC 9110, section 9.1)."""
    if len(text) <= 32 and _TOKEN.fullmatch(text):
        return text
    raise UnreadableError("an HTTP method such as GET, in the case in which it is sent")


def header_name(text: str) -> str:
    """The name of a header field, in lower case: names are the same in any case."""
    if len(text) <= 128 and _TOKEN.fullmatch(text):
        return text.lower()
    raise UnreadableError("the name of a header field, such as X-Request-ID")


def header_value(text: str) -> str:
    """The value of a header field."""
    if len(text) <= 4096 and _HEADER_VALUE.fullmatch(text):
        return text
    raise UnreadableError("printable ASCII of at most 4096 characters, without white space at either end")


def path(text: str) -> str:
    """What a path is compared with."""
    if len(text) <= 1024 and _PATH.fullmatch(text):
        return text
    raise UnreadableError("printable ASCII without spaces, at most 1024 characters, without query and fragment")


def parameter(text: str) -> str:
    """The name or value of a query parameter, decoded."""
    if len(text) <= 1024:
        return text
    raise UnreadableError("at most 1024 characters")


def body(text: str) -> str:
    """The body of an answer."""
    if len(text) <= 4096:
        return text
    raise UnreadableError("at most 4096 characters")


def media_type(text: str) -> str:
    """A media type, or all of one type; in lower case (RFC 9110, section 8.3.1)."""
    if len(text) <= 128 and _MEDIA_TYPE.fullmatch(text):
        return text.lower()
    raise UnreadableError("a media type such as application/json, or text/* for all texts, without parameters")


NUMBERS: dict[str, Callable[[float | str], object]] = {
    "ports": ports,
    "ids": ids,
    "duration": duration,
    "share": share,
}
"""Grammars that numbers belong to."""

TEXTS: dict[str, Callable[[str], str]] = {
    "name": name,
    "rule name": rule_name,
    "host": host,
    "subject host": subject_host,
    "cidr": cidr,
    "address": address,
    "interface": interface,
    "ja4": ja4,
    "method": method,
    "header name": header_name,
    "header value": header_value,
    "path": path,
    "parameter": parameter,
    "body": body,
    "media type": media_type,
}
"""Grammars of text alone."""


def _range(value: float | str, least: int, most: int, allowed: str) -> tuple[int, int]:
    if isinstance(value, int):
        first = last = value
    elif isinstance(value, str) and (found := _RANGE.fullmatch(value)):
        first, last = int(found[1]), int(found[2] or found[1])
    else:
        raise UnreadableError(allowed)
    if not least <= first <= last <= most:
        raise UnreadableError(allowed)
    return first, last


def _is_address(text: str) -> bool:
    try:
        return "%" not in str(ip_address(text))
    except ValueError:
        return False
