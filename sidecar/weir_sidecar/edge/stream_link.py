"""One TLS connection to the control plane: made, written to and read from, without ever keeping the loop waiting."""

import asyncio
import errno
import os
from enum import StrEnum
from socket import socket

from cryptography import x509
from OpenSSL import SSL, crypto

from weir_sidecar.certs.bundle import BundleError, certificates
from weir_sidecar.certs.names import mismatch
from weir_sidecar.contract.config import Stream
from weir_sidecar.edge import resolve
from weir_sidecar.edge.dial import Dial, DialError
from weir_sidecar.edge.tls_session import RECORD_BYTES, Session, SessionEndedError, Step, new_context
from weir_sidecar.edge.waiting import wait_any

CONNECT_SECONDS = 10.0
"""For the name, for each address, and for the handshake."""
BACKLOG = 4 << 20
"""Bytes that may wait for a server that does not read."""
_BURST = 16
"""TLS records that are read in one turn of the loop."""


class StreamEnd(StrEnum):
    """Why a connection came to nothing, or ended; in the words that people are told."""

    UNREACHABLE = "it cannot be reached"
    UNTRUSTED = "it is not who it should be"
    REFUSED = "it refuses this pod"
    UNAVAILABLE = "it asks to come later"
    BROKEN = "the connection broke"
    CLEAN = "it ended the stream"
    NO_TOKEN = "there is no token for it"  # noqa: S105 - words about one
    MOVED = "the config names another server"
    FAULT = "the client failed"


class StreamEndedError(Exception):
    """The connection is over, or never was. `detail` says more."""

    def __init__(self, end: StreamEnd, detail: str) -> None:
        super().__init__(f"{end}: {detail}")
        self.end = end
        self.detail = detail


def endpoint(stream: Stream) -> tuple[str, int]:
    """Host and port of the server. Raises `StreamEndedError` for what is not HOST:PORT."""
    host, _, port = stream.server.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise StreamEndedError(StreamEnd.UNREACHABLE, f"stream.server is {stream.server!r}; it must be HOST:PORT")
    return host.removeprefix("[").removesuffix("]").lower(), int(port)


def trusting(stream: Stream) -> SSL.Context:
    """A context that trusts the control plane's CAs and nobody else. Raises `StreamEndedError`."""
    context = new_context(SSL.TLS1_3_VERSION)
    context.set_verify(SSL.VERIFY_PEER)
    store = context.get_cert_store()
    assert store is not None
    try:
        for der in certificates(stream.authorities_pem.encode()):
            store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, der))
    except (BundleError, crypto.Error) as error:
        raise StreamEndedError(StreamEnd.UNTRUSTED, f"stream.authoritiesPem cannot be read: {error}") from error
    return context


async def connect(loop: asyncio.AbstractEventLoop, stream: Stream) -> "Link":
    """A connection whose server is verified. Raises `StreamEndedError`."""
    host, port = endpoint(stream)
    context = trusting(stream)
    sock = await _dial(loop, host, port)
    session = Session(context, sock)
    try:
        await _handshake(loop, session, host)
    except BaseException:
        session.release()
        sock.close()
        raise
    return Link(loop, session)


async def _dial(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket:
    try:
        found = await resolve.addresses(loop, host, port, CONNECT_SECONDS * 3)
    except OSError as error:
        raise StreamEndedError(StreamEnd.UNREACHABLE, f"{host}: {error.strerror or error or 'no answer'}") from error
    failure = f"{host} has no address"
    for address in found:
        try:
            dial = Dial((address, port))
        except DialError as error:
            failure = f"{address} port {port}: {_why(error)}"
            continue
        try:
            return await dial.finish(loop, CONNECT_SECONDS)
        except DialError as error:
            failure = f"{address} port {port}: {_why(error)}"
            dial.sock.close()
        except BaseException:
            dial.sock.close()
            raise
    raise StreamEndedError(StreamEnd.UNREACHABLE, failure)


def _why(error: DialError) -> str:
    return os.strerror(error.cause.errno or errno.ETIMEDOUT)


async def _handshake(loop: asyncio.AbstractEventLoop, session: Session, host: str) -> None:
    connection, fd = session.connection, session.sock.fileno()
    if ":" not in host and not host.replace(".", "").isdigit():
        connection.set_tlsext_host_name(host.encode("ascii"))
    connection.set_alpn_protos([b"http/1.1"])
    connection.set_connect_state()
    deadline = loop.time() + CONNECT_SECONDS
    try:
        while (step := session.handshake()) is not Step.DONE:
            ways = {"readable": (fd,)} if step is Step.WANT_READ else {"writable": (fd,)}
            if await wait_any(loop, **ways, seconds=deadline - loop.time()) is None:
                raise StreamEndedError(StreamEnd.UNREACHABLE, "the TLS handshake takes too long")
    except SessionEndedError as error:
        if session.verify_error:
            reason = f"its certificate does not verify (X509_V_ERR {session.verify_error})"
            raise StreamEndedError(StreamEnd.UNTRUSTED, reason) from error
        raise StreamEndedError(StreamEnd.UNREACHABLE, f"the TLS handshake failed: {error}") from error
    certificate: x509.Certificate | None = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None or mismatch(certificate, (host,)):
        raise StreamEndedError(StreamEnd.UNTRUSTED, f"its certificate does not name {host}")


class Link:
    """The connection, made. One task takes turns; anybody may `post`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, session: Session) -> None:
        self._loop = loop
        self._session = session
        self._fd = session.sock.fileno()
        self._out = bytearray()
        self._more = False
        """There may be bytes that were received and not read yet."""
        self._waiting: asyncio.Future[None] | None = None

    def post(self, data: bytes) -> None:
        """Send `data` as soon as it can be."""
        self._out += data
        if self._waiting is not None:
            _wake(self._waiting)

    async def turn(self, seconds: float) -> bytes:
        """Wait until there is something to do, for `seconds` at most; send, and return what came. `StreamEndedError`."""
        await self._wait(0.0 if self._more else seconds)
        self._flush()
        return self._receive()

    def close(self, last: bytes = b"") -> None:
        """Send `last` as far as it goes without waiting, and end the connection."""
        self._out += last
        try:
            self._flush()
            self._session.notify()
        except StreamEndedError:
            pass  # it was over already
        self._session.release()
        self._session.sock.close()

    async def _wait(self, seconds: float) -> None:
        future = self._loop.create_future()
        self._waiting = future
        timer = self._loop.call_later(max(seconds, 0.0), _wake, future)
        self._loop.add_reader(self._fd, _wake, future)
        if self._out:
            self._loop.add_writer(self._fd, _wake, future)
        try:
            await future
        finally:
            self._waiting = None
            timer.cancel()
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._session.send(bytes(self._out[:RECORD_BYTES]))
                del self._out[:sent]
        except (SSL.WantWriteError, SSL.WantReadError):
            if len(self._out) > BACKLOG:
                raise StreamEndedError(StreamEnd.BROKEN, "the server does not read") from None
        except SSL.Error as error:
            raise self._ended(error) from error

    def _receive(self) -> bytes:
        data = bytearray()
        self._more = False
        try:
            for _ in range(_BURST):
                data += self._session.recv()
        except (SSL.WantReadError, SSL.WantWriteError):
            return bytes(data)
        except SSL.Error as error:
            if not data:
                raise self._ended(error) from error
        self._more = True
        return bytes(data)

    def _ended(self, error: SSL.Error) -> StreamEndedError:
        return StreamEndedError(StreamEnd.BROKEN, f"it was cut: {self._session.ended(error)}")


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
