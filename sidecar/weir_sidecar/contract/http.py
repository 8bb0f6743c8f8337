"""Rules on HTTP requests: the `http` of a rule in the sidecar config. They are asked in flows that the rule let in.

The first that matches a request decides about it; a request that none matches is let through. Header names are
lower case. docs/policy.md tells users what each field means.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

DENIED = 403
"""The status of the answer to a denied request, where none is given."""

HOSTS_SUFFIX = ".hosts"
"""KEY.hosts, beside KEY in a Secret: the hosts that it may be sent to, patterns between spaces, commas or ends of lines."""
CA_SUFFIX = ".ca"
"""KEY.ca: the roots, as PEM text, that may vouch for those hosts, beside the system's own."""

type Status = Annotated[int, msgspec.Meta(ge=200, le=599)]


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """A frozen part of the config; unknown fields are errors."""


class PathKind(StrEnum):
    """How a path is compared. Always without the query, and in every reading that a server may have of it.

    Prefix goes by whole segments: `/api` is a prefix of `/api` and `/api/v1`, not of `/apis`. Glob: `*` stands for
    anything in one segment, `**` for anything. Regex (`contract.pattern`: RE2's syntax) has to match the whole path.
    """

    EXACT = "Exact"
    PREFIX = "Prefix"
    GLOB = "Glob"
    REGEX = "Regex"


class PathMatch(_Value, frozen=True):
    """Paths that begin with a slash, or `*` (of OPTIONS)."""

    value: str
    kind: PathKind = PathKind.PREFIX


class HeaderMatch(_Value, frozen=True):
    """A header field that is there, with this value where one is given."""

    name: str
    value: str | None = None


class QueryMatch(_Value, frozen=True):
    """A query parameter that is there, with this value (decoded) where one is given."""

    name: str
    value: str | None = None


class RequestMatch(_Value, frozen=True):
    """All given parts must hold: one of `methods`, one of `paths`, each of `headers`, each of `query`."""

    methods: tuple[str, ...] = ()
    paths: tuple[PathMatch, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()


class RequestAction(StrEnum):
    """What is done with a request that a rule matches."""

    ALLOW = "Allow"
    DENY = "Deny"


class Header(_Value, frozen=True):
    """A header field to set: it replaces all fields of that name."""

    name: str
    value: str


class Credential(_Value, frozen=True):
    """A header field whose value the sidecar reads from `file`, and the application cannot read.

    `format` has one `{}`, for the secret. With a `placeholder` the request's own field of that name has its occurrences
    replaced by the secret, and is left alone where there is none; without one, the field is set. A placeholder that is
    sent anywhere else is refused.
    """

    header: str
    file: str
    format: str = "{}"
    placeholder: str | None = None
    limited: bool = False
    """`file` is a Secret's key, and goes only where FILE.hosts and FILE.ca beside it say: whoever writes
    a policy need not be who may read the Secret."""


class RequestRule(_Value, frozen=True):
    """One rule on requests. `status` and `body` are the answer to a denied request."""

    name: str
    match: RequestMatch = RequestMatch()
    action: RequestAction = RequestAction.ALLOW
    status: Status = DENIED
    body: str | None = None
    """None: a sentence that names the rule."""
    set_request_headers: tuple[Header, ...] = ()
    remove_request_headers: tuple[str, ...] = ()
    set_response_headers: tuple[Header, ...] = ()
    remove_response_headers: tuple[str, ...] = ()
    delay: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    """Seconds that the request waits before it is decided about further."""
    abort: bool = False
    """The request is answered by a reset: of the connection in HTTP/1.1, of the stream in HTTP/2."""
    credential: Credential | None = None
