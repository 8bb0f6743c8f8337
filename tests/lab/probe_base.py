"""What the probes are made of: connections, contexts, reading, and names for how things fail."""

import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Any

from lab.tls_stream import BareEndError, TLSStream

type Outcome = Any
type Stream = socket.socket | TLSStream

READ = 256 * 1024
PATIENCE = 2.0
"""Seconds after which a client here gives up on an answer."""
LONG = 120.0


def context(ca: str, **options: Any) -> ssl.SSLContext:
    """A good client's context: the environment's roots, and the lab's."""
    made = ssl.create_default_context()
    made.load_verify_locations(ca)
    # A name in the subject alone is no name (RFC 9525, 6.4.4).
    made.hostname_checks_common_name = False
    for name, value in options.items():
        setattr(made, name, value)
    return made


@contextlib.contextmanager
def connected(address: str, port: int, timeout: float = PATIENCE) -> Iterator[socket.socket]:
    with socket.create_connection((address, port), timeout=timeout) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sock


def read_all(sock: Stream) -> Iterator[bytes]:
    while data := sock.recv(READ):
        yield data


def read_exactly(sock: Stream, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := sock.recv(size - len(data))):
        data += part
    return data


def maybe_tls(sock: socket.socket, host: str | None, ca: str) -> Stream:
    return TLSStream(sock, host, ca) if host else sock


def named(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, BareEndError):
        return "bare end"
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason}"
    return errno.errorcode.get(error.errno or 0, str(error))
