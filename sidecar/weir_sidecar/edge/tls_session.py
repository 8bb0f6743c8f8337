"""One TLS connection on a non-blocking socket: steps, bytes and how it ended, as values.

The only module that knows pyOpenSSL's ways; both sides of an interception use it. OpenSSL works on the socket itself
(no memory BIOs), alerts come as numbers from its info callback, and no error string is ever looked at.
"""

from enum import Enum, StrEnum
from hashlib import sha256
from socket import SHUT_WR, socket
from typing import Any, cast

from OpenSSL import SSL, _util, crypto

_LIB = _util.lib
"""pyOpenSSL's binding. Its public face turns errors into strings, and calls Python at each step of a handshake."""

_ALERT_REASONS = 1000
"""SSL_AD_REASON_OFFSET (openssl/ssl.h): the reason of an error that an alert caused is the alert plus this."""

_READ_ALERT = SSL.SSL_CB_READ_ALERT
_CLOSE_NOTIFY = 0
RECORD_BYTES = 16384
"""The most that one TLS record carries (RFC 8446, section 5.1)."""
READ_BYTES = 8 * RECORD_BYTES
"""A read that has so much asks for no more records."""
_BULK = 2 * RECORD_BYTES

_BUFFER = _util.ffi.new_allocator(should_clear_after_alloc=False)("char[]", READ_BYTES + RECORD_BYTES)
_VIEW = _util.ffi.buffer(_BUFFER)
"""Where every session reads to; what came is copied out before anything else is done."""

VERSION_NAMES = {SSL.TLS1_2_VERSION: "1.2", SSL.TLS1_3_VERSION: "1.3"}

CIPHERS_TLS12 = b"ECDHE+AESGCM:ECDHE+CHACHA20:+AES256:+CHACHA20"
CIPHERS_TLS13 = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""Forward secret AEAD suites alone. A peer that has none of them is passed through. AES-128 first: it is as safe here,
and with SHA-256 a handshake costs 30 µs less, a byte a quarter less."""

_CLASSICAL_GROUPS = b"X25519:P-256:P-384"

_OPTIONS = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_RENEGOTIATION
    # A FIN without close_notify must not poison the other direction; the info callback tells the two apart.
    | SSL.OP_IGNORE_UNEXPECTED_EOF
)


class Step(Enum):
    """Where a handshake stands: over, or waiting for the socket."""

    DONE = 0
    WANT_READ = 1
    WANT_WRITE = 2


class End(StrEnum):
    """How a peer ended a connection."""

    CLOSE_NOTIFY = "close_notify"
    FIN = "fin"
    RESET = "reset"
    ALERT = "alert"
    TLS_ERROR = "tls_error"
    OURS = "ours"
    """We ended it: a rule says so, or what came could not be let through."""


class SessionEndedError(Exception):
    """The connection is over. `end` says how; `alert` is the peer's alert (RFC 8446, section 6) where one came."""

    def __init__(self, end: End, alert: int | None = None) -> None:
        super().__init__(end.value if alert is None else f"{end.value} {alert}")
        self.end = end
        self.alert = alert


def new_context(min_version: int = SSL.TLS1_2_VERSION) -> SSL.Context:
    """A context with what both sides share: versions, ciphers, small buffers, and the observer of alerts."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(min_version)
    context.set_cipher_list(CIPHERS_TLS12)
    context.set_tls13_ciphersuites(CIPHERS_TLS13)
    context.set_options(_OPTIONS)
    context.set_mode(
        SSL.MODE_RELEASE_BUFFERS | _LIB.SSL_MODE_ENABLE_PARTIAL_WRITE | _LIB.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


def note_certificate_requests(context: SSL.Context) -> None:
    """Let sessions of a client-side `context` note a CertificateRequest (SSL_CTX_set_cert_cb(3)); none is answered."""
    _LIB.SSL_CTX_set_cert_cb(context._context, _certificate_requested, _util.ffi.NULL)


class Session:
    """One side's TLS connection. `alpn` is what a server side will choose, or what a client side was given."""

    __slots__ = (
        "_established",
        "_failed",
        "_ssl",
        "alert",
        "alpn",
        "certificate_requested",
        "closed_by_notify",
        "connection",
        "sock",
        "verify_error",
    )

    def __init__(self, context: SSL.Context, sock: socket) -> None:
        self.sock = sock
        self.alpn: bytes | None = None
        self.alert: int | None = None
        self.closed_by_notify = False
        self._established = False
        self._failed: SSL.Error | None = None
        self.certificate_requested = False
        self.verify_error = 0
        self.connection = connection = SSL.Connection(context, sock)
        self._ssl = connection._ssl
        connection.set_app_data(self)

    def offer_classical_groups(self) -> None:
        """Offer no post-quantum key share: for a client that has none, it costs 0.2 ms of CPU and protects nothing."""
        if _LIB.SSL_set1_curves_list(self._ssl, _CLASSICAL_GROUPS) != 1:
            raise ValueError("OpenSSL does not know the groups X25519, P-256 and P-384")

    def handshake(self) -> Step:
        """Go on with the handshake. Raises `SessionEndedError`."""
        result = _LIB.SSL_do_handshake(self._ssl)
        if result == 1:
            # From here on alerts come between records, and only this tells a close_notify from a FIN.
            _LIB.SSL_set_info_callback(self._ssl, _alert_read)
            self._established = True
            return Step.DONE
        match _LIB.SSL_get_error(self._ssl, result):
            case _LIB.SSL_ERROR_WANT_READ:
                return Step.WANT_READ
            case _LIB.SSL_ERROR_WANT_WRITE:
                return Step.WANT_WRITE
            case error:
                raise self._handshake_ended(error, _util.ffi.errno)

    def _handshake_ended(self, error: int, errno: int) -> SessionEndedError:
        reason = _LIB.ERR_GET_REASON(_LIB.ERR_peek_error())
        # An error that stays in OpenSSL's queue would be taken for the next connection's.
        _LIB.ERR_clear_error()
        self.verify_error = _LIB.SSL_get_verify_result(self._ssl)
        if error == _LIB.SSL_ERROR_SSL and reason >= _ALERT_REASONS:
            self.alert = reason - _ALERT_REASONS
            return SessionEndedError(End.ALERT, self.alert)
        if error == _LIB.SSL_ERROR_ZERO_RETURN:
            return SessionEndedError(End.CLOSE_NOTIFY)
        if error == _LIB.SSL_ERROR_SYSCALL:
            return SessionEndedError(End.RESET if errno else End.FIN)
        return SessionEndedError(End.TLS_ERROR)

    def recv(self) -> bytes:
        """What has come, as whole records. Raises `SSL.WantReadError` and its like, or what `ended` explains.

        A record that is not full is most often the last for now, but in bulk: the next would only be asked for in vain.
        """
        if self._failed is not None:
            raise self._failed
        size = last = _LIB.SSL_read(self._ssl, _BUFFER, RECORD_BYTES)
        if size <= 0:
            self.connection._raise_ssl_error(self._ssl, size)
        while last > 0 and (last == RECORD_BYTES or size >= _BULK) and size < READ_BYTES:
            last = _LIB.SSL_read(self._ssl, _BUFFER + size, RECORD_BYTES)
            if last > 0:
                size += last
            elif _LIB.SSL_get_error(self._ssl, last) != _LIB.SSL_ERROR_WANT_READ:
                self._failed = self._error(last)
        return cast("bytes", _VIEW[:size])

    def _error(self, result: int) -> SSL.Error:
        """What a read failed with: it is raised by the next, when what came before has been taken."""
        try:
            self.connection._raise_ssl_error(self._ssl, result)
        except SSL.Error as error:
            _LIB.ERR_clear_error()
            return error
        raise AssertionError("pyOpenSSL has raised an error for every failure")

    def send(self, data: bytes | memoryview) -> int:
        """Send what there is room for. Raises `SSL.WantWriteError` and its like, or what `ended` explains."""
        ssl = self._ssl
        sent = _LIB.SSL_write(ssl, _util.ffi.from_buffer(data), len(data))
        if sent <= 0:
            self.connection._raise_ssl_error(ssl, sent)
        return cast("int", sent)

    def ended(self, error: SSL.Error) -> SessionEndedError:
        """What `error`, raised by `recv`, `send` or a handshake, says about the peer."""
        # An error that stays in OpenSSL's queue would be taken for the next connection's.
        _LIB.ERR_clear_error()
        if self.alert is not None:
            return SessionEndedError(End.ALERT, self.alert)
        if isinstance(error, SSL.ZeroReturnError):
            return SessionEndedError(End.CLOSE_NOTIFY if self.closed_by_notify else End.FIN)
        if isinstance(error, SSL.SysCallError):
            return SessionEndedError(End.RESET if error.args[0] > 0 else End.FIN)
        return SessionEndedError(End.TLS_ERROR)

    def pending(self) -> int:
        """Bytes that were taken from the socket and not asked for yet."""
        return self.connection.pending() + (self._failed is not None)

    def notify(self) -> bool:
        """Send close_notify; False where the socket is full: ask again when it is writable. What the peer still sends can be read."""
        try:
            self.connection.shutdown()
        except SSL.WantWriteError:
            return False
        except SSL.Error:
            _LIB.ERR_clear_error()  # the peer is gone already, and is told nothing
        return True

    def half_close(self) -> None:
        """Send FIN. A peer that is gone already is told nothing."""
        try:
            self.sock.shutdown(SHUT_WR)
        except OSError:
            return

    def release(self) -> None:
        """Break the cycle between this and the connection, so that memory goes at once; the socket stays open."""
        self.connection.set_app_data(None)

    def version(self) -> str | None:
        """The version that was agreed, as "1.2" or "1.3"; None where no handshake was completed."""
        if not self._established:
            return None
        return VERSION_NAMES.get(self.connection.get_protocol_version())

    def anchor(self) -> bytes | None:
        """The root that the peer's certificate was verified with: SHA-256 of its DER; None where none was."""
        chain = self.connection.get_verified_chain()
        return sha256(crypto.dump_certificate(crypto.FILETYPE_ASN1, chain[-1])).digest() if chain else None


@_util.ffi.callback("void (*)(const SSL *, int, int)")  # type: ignore[untyped-decorator]
def _alert_read(ssl: Any, where: int, value: int) -> None:
    if where & _READ_ALERT == _READ_ALERT:
        session = SSL.Connection._reverse_mapping[ssl].get_app_data()
        if value & 0xFF == _CLOSE_NOTIFY:
            session.closed_by_notify = True
        else:
            session.alert = value & 0xFF


@_util.ffi.callback("int (*)(SSL *, void *)")  # type: ignore[untyped-decorator]
def _certificate_requested(ssl: Any, _: Any) -> int:
    SSL.Connection._reverse_mapping[ssl].get_app_data().certificate_requested = True
    return 1
