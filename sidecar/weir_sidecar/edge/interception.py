"""The interception of one TLS connection: upstream's handshake first, then the client's, then the decrypted relay."""

import asyncio
import datetime as dt
from collections.abc import Callable
from socket import socket

import msgspec
from cryptography import x509

from weir_sidecar.contract.config import OnInvalidCertificate
from weir_sidecar.contract.flow import FlowError, Reason, TLSFacts
from weir_sidecar.contract.request import RequestError
from weir_sidecar.core.tls_outcome import ClientEnd
from weir_sidecar.edge import relay
from weir_sidecar.edge.client_watch import ClientWatch
from weir_sidecar.edge.first_bytes import FirstBytes
from weir_sidecar.edge.relay import RelayEnd, Side, reset_error, reset_on_close
from weir_sidecar.edge.relay_http1 import GONE, HTTP1Relay
from weir_sidecar.edge.relay_http2 import HTTP2Reader
from weir_sidecar.edge.relay_tls import TLSWay
from weir_sidecar.edge.requests import FlowRequests
from weir_sidecar.edge.tls_client import ClientTLS, alert_for
from weir_sidecar.edge.tls_session import End, Session, SessionEndedError, Step
from weir_sidecar.edge.tls_upstream import UpstreamTLS
from weir_sidecar.edge.trust_gate import TrustGate
from weir_sidecar.edge.waiting import has_hung_up, wait_any
from weir_sidecar.wire.clienthello import ClientHello

_TLS12 = 0x0303
_ECDSA_P256_SHA256 = 0x0403
_HTTP1 = (b"http/1.1", b"http/1.0")
_HTTP2 = b"h2"
_ECDHE_ECDSA_AEAD = frozenset({0xC02B, 0xC02C, 0xCCA9})
"""What a client must offer to be served our leaf in TLS 1.2 (RFC 5289, RFC 7905)."""

_CLIENT_END = {
    End.CLOSE_NOTIFY: ClientEnd.CLOSE_NOTIFY,
    End.FIN: ClientEnd.FIN,
    End.RESET: ClientEnd.RST,
    End.ALERT: ClientEnd.ALERT,
    End.TLS_ERROR: ClientEnd.UPSTREAM,
}


class Unsuitable(msgspec.Struct, frozen=True):
    """Not intercepted: pass through for `reason`; or, with an `alert`, refuse the client with it."""

    reason: Reason
    alert: int | None = None


class Subject(msgspec.Struct, frozen=True):
    """Whom the trust cache is asked about: the host, and the app as far as it is known."""

    host: str
    uid: int | None
    ja4: str | None


class Intercepted(msgspec.Struct, frozen=True):
    """What became of an interception. `reason`: the trust cache's, where it had one."""

    reason: Reason | None
    alpn: str | None
    error: FlowError | None


class Interceptor(msgspec.Struct):
    """What all interceptions share. `now`: the time of day, aware, in UTC; `clock`: monotonic seconds."""

    upstream: UpstreamTLS
    client: ClientTLS
    on_invalid: OnInvalidCertificate
    handshake_timeout: float
    now: Callable[[], dt.datetime]
    clock: Callable[[], float]

    @staticmethod
    def unsuitable(hello: ClientHello) -> Reason | None:
        """Why this client cannot be served a leaf of ours at all, if so."""
        if hello.max_version < _TLS12:
            return Reason.CLIENT_TLS_TOO_OLD
        if hello.signature_algorithms and _ECDSA_P256_SHA256 not in hello.signature_algorithms:
            return Reason.CLIENT_TLS_TOO_OLD
        if hello.max_version == _TLS12 and _ECDHE_ECDSA_AEAD.isdisjoint(hello.ciphers):
            return Reason.CLIENT_TLS_TOO_OLD
        return None


class Interception:
    """One interception. `run` it once; `facts`, bytes (of the application) and `close` whatever came of it."""

    __slots__ = (
        "_broken", "_client", "_hello", "_interceptor", "_loop", "_requests", "_sock", "_subject", "_trust", "_upstream", "_watch", "bytes_down",
        "bytes_up",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917  (the two ends, the judge of trust, and the shared means)
        self,
        loop: asyncio.AbstractEventLoop,
        interceptor: Interceptor,
        trust: TrustGate,
        subject: Subject,
        client: socket,
        hello: ClientHello,
        requests: FlowRequests,
    ) -> None:
        self._loop = loop
        self._interceptor = interceptor
        self._trust = trust
        self._subject = subject
        self._sock = client
        self._hello = hello
        self._requests = requests
        self._broken: FlowError | None = None
        self._upstream: Session | None = None
        self._client: Session | None = None
        self._watch: ClientWatch | None = None
        self.bytes_up = 0
        self.bytes_down = 0

    async def run(self, upstream: socket, names: tuple[str, ...]) -> Intercepted | Unsuitable:
        """Intercept between the client and the connected `upstream`, whose certificate must name one of `names`."""
        met = await self._meet_upstream(upstream, names)
        if isinstance(met, Unsuitable):
            return met
        server = self._upstream
        assert server is not None
        alpn = server.connection.get_alpn_proto_negotiated() or None
        version = server.version()
        if version == "1.2" and _ECDHE_ECDSA_AEAD.isdisjoint(self._hello.ciphers):
            return Unsuitable(Reason.CLIENT_TLS_TOO_OLD)
        # Only now: an upstream that hangs must not hold up those who wait for this client's verdict.
        reason, ticket = await self._trust.admit(self._subject.host, self._subject.uid, self._subject.ja4)
        if ticket is None:
            assert reason is not None
            return Unsuitable(reason)
        interceptor = self._interceptor
        self._client = client = interceptor.client.session(self._sock, met, version, alpn, interceptor.now())
        text = None if alpn is None else alpn.decode("ascii", "backslashreplace")
        if has_hung_up(self._sock):
            self._trust.abandon(ticket)  # it never saw our Certificate
            failed: FlowError | None = FlowError.CLIENT_LEFT_HANDSHAKE
        else:
            self._watch = ClientWatch(self._loop, self._trust, ticket, client, interceptor.clock)
            failed = await self._meet_client(client, self._watch)
        if failed is not None:
            reset_on_close(upstream)
            return Intercepted(reason, text, failed)
        assert self._watch is not None
        end = await self._relay(client, server, self._watch, alpn)
        return Intercepted(reason, text, self._broken or _relay_error(end, proven=self._watch.proven))

    def facts(self) -> TLSFacts:
        """What TLS said on both sides."""
        client, upstream = self._client, self._upstream
        return TLSFacts(
            client_version=None if client is None else client.version(),
            upstream_version=None if upstream is None else upstream.version(),
            client_alert=None if client is None else client.alert,
            verify_error=(upstream.verify_error or None) if upstream is not None else None,
        )

    def close(self) -> None:
        """Let go of both sessions, and of the ticket."""
        if self._watch is not None:
            self._watch.close()
        for session in (self._client, self._upstream):
            if session is not None:
                session.release()

    async def _meet_upstream(self, sock: socket, names: tuple[str, ...]) -> x509.Certificate | Unsuitable:
        interceptor = self._interceptor
        self._upstream = session = interceptor.upstream.session(sock, self._hello)
        try:
            await self._handshake(session)
        except (SessionEndedError, TimeoutError):
            if session.verify_error:
                return self._invalid(session.verify_error)
            # Without our certificate such a server may end the handshake; its own has been verified by then.
            if not session.certificate_requested:
                return Unsuitable(Reason.UPSTREAM_TLS_FAILED)
        certificate = session.connection.get_peer_certificate(as_cryptography=True)
        assert certificate is not None, "a verified TLS server has a certificate"
        session.verify_error = interceptor.upstream.verify_names(certificate, names)
        if session.verify_error:
            return self._invalid(session.verify_error)
        self._requests.server = session
        # Only the host itself may say so: it is remembered for all that go there.
        return Unsuitable(Reason.CLIENT_CERTIFICATE_REQUESTED) if session.certificate_requested else certificate

    def _invalid(self, verify_error: int) -> Unsuitable:
        passes = self._interceptor.on_invalid is OnInvalidCertificate.PASSTHROUGH
        return Unsuitable(Reason.UPSTREAM_CERTIFICATE_INVALID, None if passes else alert_for(verify_error))

    async def _meet_client(self, session: Session, watch: ClientWatch) -> FlowError | None:
        try:
            await self._handshake(session)
        except SessionEndedError as ended:
            watch.ended(_CLIENT_END[ended.end])
            failed = ended.end in (End.ALERT, End.TLS_ERROR)
            return FlowError.CLIENT_TLS_FAILED if failed else FlowError.CLIENT_LEFT_HANDSHAKE
        except TimeoutError:
            watch.ended(ClientEnd.OPEN)
            return FlowError.CLIENT_TIMED_OUT
        watch.completed()
        return None

    async def _handshake(self, session: Session) -> None:
        """Raises `SessionEndedError`, `TimeoutError`."""
        deadline = self._interceptor.clock() + self._interceptor.handshake_timeout
        fds = (session.sock.fileno(),)
        while (step := session.handshake()) is not Step.DONE:
            left = deadline - self._interceptor.clock()
            readable, writable = (fds, ()) if step is Step.WANT_READ else ((), fds)
            if left <= 0 or await wait_any(self._loop, readable, writable, left) is None:
                raise TimeoutError

    async def _relay(self, client: Session, server: Session, watch: ClientWatch, alpn: bytes | None) -> RelayEnd:
        up = TLSWay(self._loop, client, server, Side.CLIENT, watch.first_byte)
        down = TLSWay(self._loop, server, client, Side.UPSTREAM)
        reader = self._reader(alpn)
        if reader is not None:
            reader.attach(up, down)
        unanswered = RequestError.PROXY_STOPPING
        try:
            end = await relay.run(self._loop, client.sock, server.sock, up, down)
            unanswered = GONE[end.first]
        finally:
            self.bytes_up, self.bytes_down = up.total, down.total
            if reader is not None:
                reader.close(unanswered)
            if not isinstance(reader, HTTP1Relay | None):
                self._broken = reader.error
        watch.ended(_CLIENT_END[end.end] if end.first is Side.CLIENT else ClientEnd.UPSTREAM)
        return end

    def _reader(self, alpn: bytes | None) -> HTTP1Relay | HTTP2Reader | FirstBytes | None:
        """What understands the protocol that both sides agreed on, if anything does."""
        if alpn == _HTTP2:
            return HTTP2Reader(self._loop, self._requests)
        if alpn in _HTTP1:
            return HTTP1Relay(self._loop, self._requests)
        return FirstBytes(self._loop, self._requests) if alpn is None else None


def _relay_error(end: RelayEnd, *, proven: bool) -> FlowError | None:
    if end.end in (End.CLOSE_NOTIFY, End.FIN, End.OURS):
        return None
    if not proven and end.first is Side.CLIENT:
        return FlowError.CLIENT_TLS_FAILED
    broken = FlowError.CLIENT_TLS_FAILED if end.first is Side.CLIENT else FlowError.UPSTREAM_TLS_FAILED
    return reset_error(end) or broken
