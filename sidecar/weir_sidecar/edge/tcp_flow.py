"""One TCP connection's way: peek, name, decide, ask the trust cache, connect, relay, record.

The order is the design's: nothing of the client's bytes is consumed until the decision stands, so every decision can
still become a passthrough; the upstream is asked before the client is answered.
"""

import asyncio
from socket import IPPROTO_TCP, SHUT_WR, TCP_NODELAY, socket

from weir_sidecar.contract.flow import Client, Decision, FlowError, FlowRecord, Protocol, Reason, TLSFacts
from weir_sidecar.contract.request import RequestError
from weir_sidecar.core.verdict import FlowFacts, Verdict
from weir_sidecar.edge import relay
from weir_sidecar.edge.context import EdgeContext, Endpoint
from weir_sidecar.edge.dial import Dial, DialError, dial_error
from weir_sidecar.edge.interception import Interception, Interceptor, Subject, Unsuitable
from weir_sidecar.edge.plain_session import PlainSession
from weir_sidecar.edge.relay import Side, reset_error, reset_on_close
from weir_sidecar.edge.relay_http1 import GONE, HTTP1Relay
from weir_sidecar.edge.relay_http2 import HTTP2Reader
from weir_sidecar.edge.relay_plain import PlainWay
from weir_sidecar.edge.relay_raw import RawWay
from weir_sidecar.edge.requests import FlowRequests
from weir_sidecar.edge.syn_hold import Admitted
from weir_sidecar.edge.tcp_peek import Opening, Peeked, Peeker
from weir_sidecar.edge.tls_client import ACCESS_DENIED, alert_record
from weir_sidecar.edge.trust_gate import TrustGate
from weir_sidecar.edge.waiting import Readers
from weir_sidecar.wire.clienthello import ClientHello
from weir_sidecar.wire.ja4 import ja4

_REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
_LAST_WORD_SECONDS = 2.0

_OPENING_REASON = {
    Opening.SERVER_FIRST: Reason.SERVER_SPEAKS_FIRST,
    Opening.SILENT: Reason.CLIENT_SILENT,
    Opening.UNREADABLE_HELLO: Reason.CLIENT_HELLO_UNREADABLE,
}
_CLEAR_HTTP = (Opening.HTTP, Opening.HTTP2)
_PROTOCOL = {Opening.TLS: Protocol.TLS, Opening.HTTP: Protocol.HTTP, Opening.HTTP2: Protocol.HTTP}


class TCPFlow:
    """The life of one captured connection. `run` never raises for what a peer does; it always writes one record."""

    __slots__ = (
        "_address",
        "_alpn",
        "_client",
        "_context",
        "_dial",
        "_down",
        "_error",
        "_facts",
        "_from_dns",
        "_hello",
        "_host",
        "_interceptor",
        "_ja4",
        "_loop",
        "_peer",
        "_port",
        "_protocol",
        "_readers",
        "_requests",
        "_started",
        "_tls",
        "_trust",
        "_uid",
        "_up",
        "_verdict",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917  (what a connection is, and what the process has to serve it with)
        self,
        loop: asyncio.AbstractEventLoop,
        context: EdgeContext,
        trust: TrustGate,
        interceptor: Interceptor,
        client: socket,
        peer: Endpoint,
        destination: Endpoint,
        admitted: Admitted | None = None,
    ) -> None:
        """`admitted`: what a hold found out already."""
        self._loop = loop
        self._context = context
        self._trust = trust
        self._interceptor = interceptor
        self._client = client
        self._peer = peer
        self._address, self._port = destination
        self._started = context.now()
        self._uid = context.uid_of(peer, destination, IPPROTO_TCP) if admitted is None else admitted.uid
        self._dial = None if admitted is None else admitted.dial
        self._hello: ClientHello | None = None
        self._ja4: str | None = None
        self._host: str | None = None
        self._protocol = Protocol.TCP
        self._alpn: str | None = None
        self._verdict = Verdict(Decision.PASSTHROUGH, Reason.CLIENT_GONE)
        self._tls: TLSFacts | None = None
        self._error: FlowError | None = None
        self._from_dns: bool | None = None
        self._readers: Readers | None = None
        self._facts: FlowFacts
        self._requests: FlowRequests | None = None
        self._up = 0
        self._down = 0

    async def run(self) -> None:
        """Serve the connection to its end."""
        try:
            self._client.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            await self._serve()
        except DialError as failed:
            self._error = dial_error(failed.cause)
            if self._verdict.reason is Reason.CLIENT_GONE:
                # Nothing was decided yet, and now there is nothing to decide.
                self._verdict = Verdict(Decision.PASSTHROUGH, Reason.UPSTREAM_UNAVAILABLE)
            reset_on_close(self._client)
        except OSError:
            self._error = FlowError.CLIENT_RESET
        except asyncio.CancelledError:
            self._error = FlowError.PROXY_STOPPING
            reset_on_close(self._client)
        except BaseException:
            self._error = FlowError.INTERNAL
            reset_on_close(self._client)
            raise
        finally:
            self._release()
            self._client.close()
            if self._dial is not None:
                self._dial.sock.close()
            self._context.record(self._record())

    async def _serve(self) -> None:
        peeked = await self._peek()
        self._protocol = _PROTOCOL.get(peeked.opening, Protocol.TCP)
        self._hello = peeked.hello
        if peeked.hello is not None:
            self._ja4 = ja4(peeked.hello)
        self._verdict = self._decide(peeked)
        match self._verdict.decision:
            case Decision.DENY:
                self._release()
                await self._refuse(peeked.opening)
            case Decision.INTERCEPT if peeked.hello is not None:
                self._release()
                await self._intercept(peeked.hello)
            case Decision.INTERCEPT if peeked.opening in _CLEAR_HTTP:
                await self._read_http(peeked.opening)
            case _:
                await self._relay_unread()

    def _release(self) -> None:
        if self._readers is not None:
            self._readers.release()
            self._readers = None

    async def _peek(self) -> Peeked:
        context = self._context
        limits = context.config.limits
        peeker = Peeker(self._loop, self._client, limits.client_hello_bytes, limits.peek_timeout)
        self._readers = peeker.readers
        if self._dial is None and context.may_connect((self._address, self._port), self._uid):
            self._connect()
        # Who may not be connected yet must say what it is; who may, can be silent for as long as it likes.
        patience = None if self._dial is not None else limits.peek_timeout
        return await peeker.peek(self._dial, patience) or Peeked(Opening.SILENT)

    def _connect(self) -> Dial:
        if self._dial is None:
            self._dial = Dial((self._address, self._port))
        return self._dial

    def _decide(self, peeked: Peeked) -> Verdict:
        context = self._context
        now = context.now()
        claimed = peeked.hello.sni if peeked.hello is not None else peeked.host
        self._host = claimed or context.names.name_of(self._address, now)
        if claimed is not None and context.config.capture.dns.capture:
            self._from_dns = context.names.gave(claimed, self._address, now) is True
        self._facts = FlowFacts(
            protocol=self._protocol,
            address=self._address,
            port=self._port,
            host=self._host,
            named_by_client=claimed is not None,
            address_from_dns=self._from_dns,
            uid=self._uid,
            ja4=self._ja4,
        )
        verdict = context.decide(self._facts)
        reason = _OPENING_REASON.get(peeked.opening)
        if reason is not None and verdict.decision is Decision.PASSTHROUGH:
            return Verdict(verdict.decision, reason, verdict.rule)
        return verdict

    async def _intercept(self, hello: ClientHello) -> None:
        subject = Subject(self._host or self._address, self._uid, self._ja4)
        reason = self._interceptor.unsuitable(hello) or self._trust.bypass(subject.host, subject.uid, subject.ja4)
        if reason is not None:
            await self._pass_through(reason)
            return
        requests = self._read_requests()
        interception = Interception(self._loop, self._interceptor, self._trust, subject, self._client, hello, requests)
        try:
            upstream = await self._upstream()
            names = (hello.sni,) if hello.sni is not None else tuple(filter(None, (self._address, self._host)))
            result = await interception.run(upstream, names)
        finally:
            self._tls = interception.facts()
            self._up, self._down = interception.bytes_up, interception.bytes_down
            interception.close()
        if isinstance(result, Unsuitable):
            self._requests = None
            await self._not_intercepted(result, subject.host)
            return
        self._alpn = result.alpn
        self._error = result.error
        if result.reason is not None:
            self._verdict = Verdict(Decision.INTERCEPT, result.reason, self._verdict.rule)

    async def _not_intercepted(self, result: Unsuitable, host: str) -> None:
        """The upstream's side says that this flow cannot, or must not, be intercepted; the client was not answered."""
        if result.alert is not None:
            self._verdict = Verdict(Decision.DENY, result.reason, self._verdict.rule)
            self._error = FlowError.UPSTREAM_CERTIFICATE_INVALID
            await self._last_word(alert_record(result.alert))
            return
        if result.reason is Reason.CLIENT_CERTIFICATE_REQUESTED:
            self._trust.remember_client_certificate(host)
        if self._dial is not None:
            self._dial.sock.close()
            self._dial = None
        await self._pass_through(result.reason)

    async def _pass_through(self, reason: Reason) -> None:
        self._verdict = Verdict(Decision.PASSTHROUGH, reason, self._verdict.rule)
        await self._relay_unread()

    async def _relay_unread(self) -> None:
        if self._dial is None or not self._dial.connected:
            self._release()
        upstream = await self._upstream()
        if self._readers is not None:
            self._readers.hand_over()
            self._readers = None
        up = RawWay(self._loop, self._client, upstream, Side.CLIENT)
        down = RawWay(self._loop, upstream, self._client, Side.UPSTREAM)
        try:
            self._error = reset_error(await relay.run(self._loop, self._client, upstream, up, down))
        finally:
            self._up, self._down = up.total, down.total

    def _read_requests(self) -> FlowRequests:
        context = self._context
        self._requests = FlowRequests(context, context.new_id(), self._facts, self._verdict.rule)
        return self._requests

    async def _read_http(self, opening: Opening) -> None:
        """Relay HTTP in the clear."""
        self._release()
        upstream = await self._upstream()
        client, server = PlainSession(self._client), PlainSession(upstream)
        up = PlainWay(self._loop, client, server, Side.CLIENT)
        down = PlainWay(self._loop, server, client, Side.UPSTREAM)
        reader: HTTP1Relay | HTTP2Reader
        if opening is Opening.HTTP2:
            reader = HTTP2Reader(self._loop, self._read_requests())
        else:
            reader = HTTP1Relay(self._loop, self._read_requests())
        reader.attach(up, down)
        unanswered = RequestError.PROXY_STOPPING
        try:
            end = await relay.run(self._loop, self._client, upstream, up, down)
            broken = reader.error if isinstance(reader, HTTP2Reader) else None
            self._error = broken or reset_error(end)
            unanswered = GONE[end.first]
        finally:
            self._up, self._down = up.total, down.total
            reader.close(unanswered)

    async def _upstream(self) -> socket:
        return await self._connect().finish(self._loop, self._context.config.limits.connect_timeout)

    async def _refuse(self, opening: Opening) -> None:
        """Say no in the client's own protocol, where we have a word for it."""
        if opening is Opening.TLS:
            await self._last_word(alert_record(ACCESS_DENIED))
        elif opening is Opening.HTTP:
            text = f"Denied by policy: {self._verdict.rule or 'default action'}\n".encode()
            await self._last_word(_REFUSAL % (len(text), text))
        else:
            reset_on_close(self._client)

    async def _last_word(self, data: bytes) -> None:
        """Send `data` and end. What the client sent is read first: a close with unread bytes resets, and loses `data`."""
        try:
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                self._client.recv(65536)
                self._client.send(data)
                self._client.shutdown(SHUT_WR)
                while await self._loop.sock_recv(self._client, 65536):
                    pass
        except (OSError, TimeoutError):
            return  # it left, or lingers; it was told

    def _record(self) -> FlowRecord:
        context, requests = self._context, self._requests
        return FlowRecord(
            time=context.wall(),
            id=context.new_id() if requests is None else requests.id,
            client=Client(self._uid, self._ja4, self._peer[0]),
            protocol=self._protocol,
            host=self._host,
            sni=None if self._hello is None else self._hello.sni,
            address=self._address,
            port=self._port,
            alpn=self._alpn,
            decision=self._verdict.decision,
            reason=self._verdict.reason,
            rule=self._verdict.rule,
            tls=self._tls,
            bytes_up=self._up,
            bytes_down=self._down,
            duration_ms=round((context.now() - self._started) * 1000, 3),
            error=self._error,
            address_from_dns=self._from_dns,
            requests=None if requests is None else requests.count,
        )
