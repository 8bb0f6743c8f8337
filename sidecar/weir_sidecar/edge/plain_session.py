"""A plain TCP connection with the face of a TLS `Session`, so that one relay reads HTTP with and without TLS."""

from socket import SHUT_WR, socket

from OpenSSL import SSL

from weir_sidecar.edge.tls_session import End, SessionEndedError

_CHUNK = 65536
_BULK = 4 * _CHUNK
"""Asked for at once while a stream fills what is asked for: a third less CPU a byte."""


class PlainSession:
    """What a relay asks of a session; see `tls_session.Session` for what each part is for."""

    __slots__ = ("_recv", "_send", "_size", "sock")

    def __init__(self, sock: socket) -> None:
        self.sock = sock
        self._recv = sock.recv
        self._send = sock.send
        self._size = _CHUNK

    def recv(self) -> bytes:
        """Bytes that are there. Raises `SSL.WantReadError`, or what `ended` explains."""
        try:
            data = self._recv(self._size)
        except BlockingIOError:
            raise SSL.WantReadError from None
        except OSError as error:
            raise SSL.SysCallError(error.errno or 0) from error
        if not data:
            raise SSL.ZeroReturnError
        self._size = _BULK if len(data) >= _CHUNK else _CHUNK
        return data

    def send(self, data: bytes | memoryview) -> int:
        """Send what there is room for. Raises `SSL.WantWriteError`, or what `ended` explains."""
        try:
            return self._send(data)
        except BlockingIOError:
            raise SSL.WantWriteError from None
        except OSError as error:
            raise SSL.SysCallError(error.errno or 0) from error

    def pending(self) -> int:
        """Bytes that were taken from the socket and not asked for yet: none."""
        return 0

    def ended(self, error: SSL.Error) -> SessionEndedError:
        """How the peer ended the connection."""
        return SessionEndedError(End.FIN if isinstance(error, SSL.ZeroReturnError) else End.RESET)

    def notify(self) -> bool:
        """There is no close_notify: the FIN of `half_close` says it all."""
        return True

    def half_close(self) -> None:
        """Send FIN. A peer that is gone already is told nothing."""
        try:
            self.sock.shutdown(SHUT_WR)
        except OSError:
            return
