"""The hand-over: how a sidecar without capabilities gets the sockets that take some to open, from the node's agent.

The agent listens on an abstract Unix socket (unix(7)) in the pod's network namespace, so nobody elsewhere can connect. It
answers the proxy's UID alone, and of this user only who knows the pod's key: whose USER is the proxy's by its image has the UID,
and not the key, which is in a volume of Weir's containers. The first `Claim` says what the key is, before applications run.

SOCK_SEQPACKET; one request a connection: the agent sends a nonce, the sidecar the sealed request (JSON), the agent an
`Answer` (JSON). Sockets come with it (SCM_RIGHTS). They are opened for the request and kept by nobody else: a listener dies
with its proxy.
"""

from hashlib import blake2b
from typing import Annotated

import msgspec

ADDRESS = "\0weir/hand-over"
MAX_BYTES = 4096
"""Of a request, and of an answer."""
MAX_SOCKETS = 8
KEY_BYTES = 32
NONCE_BYTES = 16
_SEAL_BYTES = 32

type Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", tag_field="want"):
    """What a sidecar may ask for."""


class Claim(_Request, frozen=True, tag="claim"):
    """That requests be sealed with this key from now on. No socket comes. The pod's first counts; repeating it is fine."""

    key: Key


class Listeners(_Request, frozen=True, tag="listeners"):
    """The transparent listeners of the pod's config: TCP of each family, then UDP of each."""


class Unreachable(_Request, frozen=True, tag="unreachable"):
    """Raw sockets for ICMP errors, one a family."""


class Tap(_Request, frozen=True, tag="tap"):
    """Raw sockets on which held SYNs come and are sent on, one a family."""


class Reply(_Request, frozen=True, tag="reply"):
    """A UDP socket bound to an address of another host, to answer from it."""

    address: str
    port: int


type Request = Claim | Listeners | Unreachable | Tap | Reply


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The sockets come with it, unless there is an error."""

    error: str = ""
    """What could not be opened, and why; empty: all could."""
    errno: int = 0
    """ENOKEY: nobody has claimed the pod yet. EKEYREJECTED: it is claimed with another key."""


def seal(key: bytes, nonce: bytes, request: bytes) -> bytes:
    """A request as it is sent: a keyed BLAKE2 (RFC 7693) of nonce and request, then the request."""
    return blake2b(nonce + request, key=key, digest_size=_SEAL_BYTES).digest() + request


def request_of(message: bytes) -> bytes:
    """The request in a message of `seal`; whether the message is what `seal` makes of it is another question."""
    return message[_SEAL_BYTES:]
