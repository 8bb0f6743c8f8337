"""A credential, and where it may be sent: what the owner of a Secret says beside it, and what becomes of a request. Pure."""

import re

import msgspec

from weir_sidecar.contract.http import Credential
from weir_sidecar.contract.request import RequestError
from weir_sidecar.core.http_policy import Edits
from weir_sidecar.core.request_log import Fields

MAX_SECRET = 16384
"""Bytes."""

_VALUE = re.compile(rb"[\t -~\x80-\xff]+")
_SEPARATORS = re.compile(r"[\s,]+")
_HOST = re.compile(r"(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?", re.ASCII | re.IGNORECASE)


class Limits(msgspec.Struct, frozen=True):
    """What a Secret's owner says of one of its keys: the hosts that may have it, and the roots that vouch for those.

    `roots` are SHA-256 digests of certificates, beside the system's own roots. Without limits, the rule alone decides.
    """

    hosts: tuple[str, ...]
    roots: frozenset[bytes] = frozenset()


class Secret(msgspec.Struct, frozen=True):
    """What is to be sent, and to whom it may be."""

    value: bytes
    limits: Limits | None = None


def value_of(content: bytes) -> bytes | None:
    """The secret that is in a file, without the end of its line; None where it is no one line that a header may have."""
    value = content.rstrip(b"\r\n")
    return value if len(value) <= MAX_SECRET and _VALUE.fullmatch(value) else None


def hosts_of(content: bytes) -> tuple[str, ...] | None:
    """Host patterns, between spaces, commas or ends of lines; None where one of them is none. `*` alone is none."""
    words = tuple(word for word in _SEPARATORS.split(content.decode("ascii", "replace")) if word)
    if not all(map(_HOST.fullmatch, words)):
        return None
    return tuple(word.lower().removesuffix(".") for word in words)


def may_be_sent(limits: Limits, host: str, anchor: bytes | None, system: frozenset[bytes]) -> RequestError | None:
    """Why the owner would not have it sent to `host`, whose certificate rests on the root with the digest `anchor`.

    A root that only a policy names does not count: whoever writes policies could vouch for a server of their own.
    """
    if not any(host == one or (one[0] == "*" and host.endswith(one[1:])) for one in limits.hosts):
        return RequestError.CREDENTIAL_HOST_NOT_NAMED
    if anchor not in limits.roots and anchor not in system:
        return RequestError.CREDENTIAL_ROOT_NOT_NAMED
    return None


def with_secret(fields: Fields, edits: Edits | None, credential: Credential, secret: bytes) -> Edits | None:
    """The edits of a request with these fields, and the secret among them; unchanged where its placeholder is not there."""
    name = credential.header.lower().encode()
    value = credential.format.encode().replace(b"{}", secret)
    if credential.placeholder is None:
        added: tuple[tuple[bytes, bytes], ...] = ((name, value),)
    else:
        placeholder = credential.placeholder.encode()
        own = [got for found, got in fields if found.lower() == name]
        if not any(placeholder in got for got in own):
            return edits
        added = tuple((name, got.replace(placeholder, value)) for got in own)
    if edits is None:
        return Edits(frozenset((name,)), added)
    return Edits(edits.remove | {name}, (*(field for field in edits.add if field[0] != name), *added))
