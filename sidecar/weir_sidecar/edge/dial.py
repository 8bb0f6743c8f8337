"""Connecting to an upstream: begun at once, finished when somebody needs it, failing as a value of its own."""

import asyncio
import errno
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SO_ERROR,
    SO_KEEPALIVE,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_KEEPIDLE,
    TCP_NODELAY,
    socket,
)

from weir_sidecar.contract.flow import FlowError
from weir_sidecar.edge.context import Endpoint
from weir_sidecar.edge.waiting import wait_any

_KEEPALIVE_IDLE = 60
"""Seconds of silence after which the upstream is asked whether it is still there (tcp(7)): the application's own probes
end at the proxy, and NAT on the way forgets silent connections."""

_FLOW_ERROR = {
    errno.ECONNREFUSED: FlowError.UPSTREAM_REFUSED,
    errno.ETIMEDOUT: FlowError.UPSTREAM_TIMED_OUT,
    # It did accept, and was gone again before we looked.
    errno.ECONNRESET: FlowError.UPSTREAM_RESET,
    errno.EPIPE: FlowError.UPSTREAM_RESET,
    # Ours, and not the upstream's: descriptors, memory or ports have run out.
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL), FlowError.OVERLOADED
    ),
}


class DialError(Exception):
    """The upstream cannot be reached; `cause` is why."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def dial_error(cause: OSError) -> FlowError:
    """How a record tells why an upstream could not be reached."""
    return _FLOW_ERROR.get(cause.errno or errno.ETIMEDOUT, FlowError.UPSTREAM_UNREACHABLE)


class Dial:
    """A connection to the upstream in the making. `sock` is connected once `connected` is true."""

    __slots__ = ("connected", "sock")

    def __init__(self, destination: Endpoint) -> None:
        """Begin to connect. Raises `DialError` where the kernel knows at once that it cannot be."""
        family = AF_INET6 if ":" in destination[0] else AF_INET
        try:
            self.sock = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
        except OSError as cause:
            raise DialError(cause) from cause
        self.sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self.sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
        self.sock.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, _KEEPALIVE_IDLE)
        error = self.sock.connect_ex(destination)
        if error not in (0, errno.EINPROGRESS):
            self.sock.close()
            raise DialError(OSError(error, "connect"))
        self.connected = error == 0

    def check(self) -> None:
        """The socket became writable: connected, or raises the `DialError` that it failed with."""
        error = self.sock.getsockopt(SOL_SOCKET, SO_ERROR)
        if error:
            raise DialError(OSError(error, "connect"))
        self.connected = True

    async def finish(self, loop: asyncio.AbstractEventLoop, seconds: float) -> socket:
        """Wait until it is connected, for `seconds` at most. Raises `DialError`."""
        if not self.connected:
            if await wait_any(loop, writable=(self.sock.fileno(),), seconds=seconds) is None:
                raise DialError(TimeoutError(errno.ETIMEDOUT, "connect"))
            self.check()
        return self.sock
