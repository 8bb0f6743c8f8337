"""Host names as clients claim them in SNI and Host: told apart from addresses and noise, and made comparable."""

import re
from functools import lru_cache

_LABELS = re.compile(rb"(?:[a-z0-9_-]{1,63}\.)*([a-z0-9_-]{1,63})\.?")
_NUMBER = re.compile(rb"[0-9]+|0x[0-9a-f]*")
_AUTHORITY = re.compile(rb"(?:\[(?P<literal>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[^:\[\]@/?#\x00-\x20]*))(?::[0-9]{0,5})?")
_NUMERIC = re.compile(rb"[0-9A-Fa-fXx.]{1,64}")
_MAX = 253  # RFC 1035 section 3.1: 255 octets on the wire, without the first length and the root


def hostname(claimed: bytes) -> str | None:
    """The DNS name in lower case without its final dot; None when it is not one.

    Names are ASCII (A-labels); an underscore and a hyphen anywhere in a label are accepted, since resolvers accept them.
    A name whose last label is a number is an address to every URL parser (WHATWG URL, "ends in a number checker"),
    so `10.0.0.1`, `127.1` and `0x7f000001` are no names; RFC 6066 section 3 forbids literal addresses in SNI as well.
    """
    name = claimed.lower()
    labels = _LABELS.fullmatch(name)
    if labels is None or _NUMBER.fullmatch(labels[1]):
        return None
    name = name.removesuffix(b".")
    return name.decode("ascii") if len(name) <= _MAX else None


@lru_cache(256)  # a client names the same few hosts again and again
def authority_host(authority: bytes) -> str | None:
    """The host of an authority (RFC 3986, section 3.2, as in Host and :authority): a DNS name, else an address as written.

    In lower case, without port, brackets and final dot. None: neither, or nothing.
    """
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        return None
    if found["literal"] is not None:
        return found["literal"].decode("ascii").lower()
    return hostname(found["name"]) or (
        found["name"].decode("ascii").lower() if _NUMERIC.fullmatch(found["name"]) else None
    )
