"""The hand-over: how a sidecar without capabilities gets the sockets that take some to open, from the node's agent.

The agent listens on an abstract Unix socket (unix(7)) in the pod's network namespace, so nobody elsewhere can connect. It
answers the proxy's UID alone. SOCK_SEQPACKET, one request and one answer a connection, JSON; sockets come with the answer
(SCM_RIGHTS). They are opened for the request and kept by nobody else: a listener dies with its proxy.
"""

import msgspec

ADDRESS = "\0weir/hand-over"
MAX_BYTES = 4096
"""Of a request, and of an answer."""
MAX_SOCKETS = 8


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", tag_field="want"):
    """What a sidecar may ask for."""


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


type Request = Listeners | Unreachable | Tap | Reply


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The sockets come with it, unless there is an error."""

    error: str = ""
    """What could not be opened, and why; empty: all could."""
    errno: int = 0
