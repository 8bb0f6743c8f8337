"""A TLS client on a socket that tells how a connection ended: close_notify, a bare end, or a reset.

The standard library's `ssl` reports a reset as an end of file; an application on OpenSSL itself sees the difference.
"""

import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from OpenSSL import SSL


class BareEndError(OSError):
    """The peer closed the connection without close_notify (RFC 8446, 6.1)."""


class TLSStream:
    """A verified TLS connection; the socket's timeout bounds each wait."""

    def __init__(self, sock: socket.socket, host: str, ca: str) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_default_verify_paths()
        context.load_verify_locations(ca)
        context.set_verify(SSL.VERIFY_PEER)
        self._sock = sock
        self._timeout = sock.gettimeout()
        self._tls = SSL.Connection(context, sock)
        self._tls.set_tlsext_host_name(host.encode())
        self._tls.set_connect_state()
        self._call(self._tls.do_handshake)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def _call(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except SSL.WantReadError:
                ready = select.select([self._sock], [], [], self._timeout)
            except SSL.WantWriteError:
                ready = select.select([], [self._sock], [], self._timeout)
            except SSL.SysCallError as error:
                number, text = error.args
                raise (BareEndError(text) if number == -1 else OSError(number, text)) from error
            if not any(ready):
                raise TimeoutError

    def sendall(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[self._call(partial(self._tls.send, view)) :]

    def recv(self, size: int) -> bytes:
        """Some bytes, or none after the peer's close_notify. Raises `BareEndError` where there was no close_notify."""
        try:
            return self._call(lambda: self._tls.recv(size))
        except SSL.ZeroReturnError:
            return b""

    @property
    def group(self) -> str | None:
        """The name of the key agreement group (RFC 8446, 4.2.7)."""
        return self._tls.get_group_name()

    def close_notify(self) -> None:
        """Say that nothing more will be sent; what the peer still has to say can be read."""
        self._tls.shutdown()
