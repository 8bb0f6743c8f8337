"""The requests of one flow: each is decided, counted, and recorded. Both relays, of HTTP/1.1 and of HTTP/2, use this.

A relay calls `started` when it has a request's head, obeys the verdict, counts bytes into the request, tells it when
the answer begins, and calls `finished` once.
"""

from msgspec import UNSET
from msgspec.structs import replace

from weir_sidecar.contract.flow import Decision, Protocol
from weir_sidecar.contract.http import Credential
from weir_sidecar.contract.request import (
    HTTPVersion,
    MessageVersion,
    RequestDecision,
    RequestError,
    RequestRecord,
    Scheme,
    TraceRecord,
)
from weir_sidecar.contract.request_log import Tracing
from weir_sidecar.core.captured import FLOW_BYTES, Room
from weir_sidecar.core.http2_tap import StreamTap
from weir_sidecar.core.http_policy import (
    ALLOWED,
    RequestFacts,
    RequestPolicy,
    RequestVerdict,
    RuleRequests,
    denied,
)
from weir_sidecar.core.placeholders import BodyWatch
from weir_sidecar.core.request_capture import RequestCapture
from weir_sidecar.core.tracing import heard, propagated
from weir_sidecar.core.verdict import FlowFacts
from weir_sidecar.core.websocket import Messages, WebSocket
from weir_sidecar.edge.context import EdgeContext
from weir_sidecar.edge.tls_session import Session
from weir_sidecar.wire.websocket import extensions as agreed

MAX_HOSTS = 64
"""Hosts of one flow whose decision is remembered."""

_UNREAD = RequestFacts(b"", None, b"", None, ())


class Request:
    """One request on its way. `request_bytes` and `response_bytes` (of bodies) are the relay's to count.

    `capture` is there where more is to be told than a line. The relay then tells it the answer's head, gives bodies to its
    sinks, and calls `asked`. In HTTP/2 `tap` does that.
    """

    __slots__ = (
        "_duration", "_error", "_facts", "_flow", "_number", "_started", "_status", "_time", "_ttfb", "capture",
        "ended", "request_bytes", "response_bytes", "tap", "trace", "verdict",
        "websocket",
    )  # fmt: skip

    def __init__(self, flow: "FlowRequests", number: int, facts: RequestFacts, verdict: RequestVerdict) -> None:
        self._flow = flow
        self._number = number
        self._facts = facts
        self._started = flow.context.now()
        self._ttfb: float | None = None
        self.verdict = verdict
        self.capture: RequestCapture | None = None
        self.tap: StreamTap | None = None
        self.trace: TraceRecord | None = None
        self.websocket: WebSocket | None = None
        self.request_bytes = 0
        self.response_bytes = 0
        self.ended = False
        self._time = ""
        self._duration = 0.0
        self._status: int | None = None
        self._error: RequestError | None = None

    def answered(self) -> None:
        """The upstream's answer begins; interim ones (1xx) count. Only the first call does."""
        if self._ttfb is None:
            self._ttfb = self._flow.context.now() - self._started

    def asked(self) -> None:
        """The upstream was sent all of it. Only who captures needs to know."""
        if self.capture is not None:
            self.capture.sent = self._flow.context.now() - self._started

    def upgraded(self, extensions: bytes) -> WebSocket:
        """It has become a WebSocket; `extensions` are those of the answer (RFC 6455, section 9.1)."""
        messages = None if self.verdict.credential is not None else self._flow.messages(self._started)
        self.websocket = WebSocket(agreed(extensions), messages)
        return self.websocket

    def finished(self, status: int | None, error: RequestError | None = None) -> None:
        """It has ended, with the final `status` that the client was sent; a second call does nothing."""
        if self.ended:
            return
        self.ended = True
        context = self._flow.context
        self._time = context.wall()
        self._duration = context.now() - self._started
        self._status = status
        self._error = error
        context.record_request(self)

    @property
    def is_large(self) -> bool:
        """Whether something was captured."""
        return self.capture is not None or self.websocket is not None

    def record(self) -> RequestRecord:
        """What is told of it, when it has ended."""
        flow, facts, verdict, ttfb = self._flow, self._facts, self.verdict, self._ttfb
        # In the order of the fields: with their names it would cost a third more.
        record = RequestRecord(
            self._time,
            flow.id,
            self._number,
            flow.version,
            flow.scheme,
            facts.host,
            flow.port,
            str(facts.method, "ascii", "backslashreplace"),
            flow.context.requests.log.path(facts.path, facts.query),
            self._status,
            self.request_bytes,
            self.response_bytes,
            None if ttfb is None else int(ttfb * 1e6) / 1000,
            int(self._duration * 1e6) / 1000,
            verdict.rule,
            verdict.decision,
            self._error or verdict.error,
        )
        if self.capture is not None:
            record = self._captured(record, self.capture)
        if self.trace is not None:
            record = replace(record, trace=self.trace)
        return record if self.websocket is None else replace(record, websocket=self.websocket.record())

    def keeps(self, record: RequestRecord) -> bool:
        """Whether the record is among those that the policy samples."""
        return self._flow.context.requests.log.keeps(record)

    def _captured(self, record: RequestRecord, capture: RequestCapture) -> RequestRecord:
        request, response = capture.record()
        sent = UNSET if capture.sent is None else int(capture.sent * 1e6) / 1000
        return replace(record, sent_ms=sent, request=request, response=response)


class FlowRequests:
    """All requests of one flow. `version` is set before the first; `count` is how many there were.

    `server` is set where TLS has verified one; it tells by which root.
    """

    __slots__ = (
        "_decided", "_facts", "_policy", "_room", "_root", "_rules", "context", "count", "id", "port", "scheme", "server", "version",
    )  # fmt: skip

    def __init__(self, context: EdgeContext, flow_id: str, facts: FlowFacts, rule: str | None) -> None:
        """`facts` and `rule`: what the flow was decided on, and by."""
        self.context = context
        self.id = flow_id
        self.version = HTTPVersion.HTTP1
        self.count = 0
        self.server: Session | None = None
        self._root: bytes | None = None
        self._room: Room | None = None
        self.scheme = Scheme.HTTPS if facts.protocol is Protocol.TLS else Scheme.HTTP
        self.port = facts.port
        self._facts = facts
        self._policy: RequestPolicy = context.requests
        self._rules: RuleRequests | RequestVerdict = self._policy.for_rule(rule)
        self._decided: dict[str, RuleRequests | RequestVerdict] = {}

    def started(self, number: int, facts: RequestFacts) -> Request:
        """A request has begun: what is to be done with it is in its verdict, edits and credential included."""
        self.count += 1
        request = Request(self, number, facts, self._decide(facts))
        if self._policy.traces:
            self._trace(request, number, facts)
        if self._policy.log.captures:
            request.capture = self._capture(facts, request.verdict)
            if self.version is HTTPVersion.HTTP2:
                request.tap = StreamTap(request.capture, asks_websocket=facts.protocol == b"websocket")
        elif facts.protocol == b"websocket":
            request.tap = StreamTap(None, asks_websocket=True)
        return request

    def messages(self, started: float) -> Messages | None:
        """For those of a WebSocket whose request began at `started`; None: nobody asks for them."""
        log = self._policy.log.web_socket
        return Messages(log, self._own_room(), self.context.now, started) if log.messages else None

    def unreadable(self, number: int, error: RequestError, status: int) -> Request:
        """A request that cannot be read, or not in one way alone: refused, or passed on unread where nothing is governed."""
        self.count += 1
        verdict = denied("The request is not well-formed.", error, status=status)
        if not self.governs:
            verdict = RequestVerdict(RequestDecision.ALLOW, error=error)
        return Request(self, number, _UNREAD, verdict)

    def watch(self) -> BodyWatch | None:
        """What looks for placeholders in a request's body, where there are any."""
        placeholders = self.context.requests.placeholders
        return BodyWatch(placeholders) if placeholders else None

    @property
    def governs(self) -> bool:
        """Whether the policy ever refuses or changes anything: then what cannot be read is refused."""
        return self.context.requests.governs

    @property
    def asks(self) -> bool:
        """Whether anybody looks at more than a request's host."""
        return self.context.requests.asks

    @property
    def must_be_http(self) -> bool:
        """Whether rules on requests are in force for the flow: then it must not be anything else."""
        return bool(self._rules_for(None))

    def _capture(self, facts: RequestFacts, verdict: RequestVerdict) -> RequestCapture:
        version = MessageVersion.HTTP2 if self.version is HTTPVersion.HTTP2 else MessageVersion.HTTP1_1
        secret = verdict.credential is not None
        return RequestCapture(self._policy.log, self._own_room(), version, facts.fields, secret=secret)

    def _trace(self, request: Request, number: int, facts: RequestFacts) -> None:
        log = self._policy.log
        if log.tracing is Tracing.RECORD:
            request.trace = heard(facts.fields)
        else:
            sampled = log.samples(self.id, number)
            request.verdict, request.trace = propagated(
                facts.fields, request.verdict, self.context.random, sampled=sampled
            )

    def _own_room(self) -> Room:
        if self._room is None:
            self._room = Room(FLOW_BYTES, self.context.room)
        return self._room

    def _decide(self, facts: RequestFacts) -> RequestVerdict:
        rules = self._rules_for(facts.host)
        verdict = rules if isinstance(rules, RequestVerdict) else rules.decide(facts)
        if self._policy.placeholders and self._policy.misused(facts, verdict.credential):
            return denied(
                "Refused: a placeholder for a credential is sent where it does not belong.",
                RequestError.PLACEHOLDER_MISUSED,
                rule=verdict.rule,
            )
        if verdict is ALLOWED or verdict.credential is None or verdict.decision is RequestDecision.DENY:
            return verdict
        return self._with_credential(facts, verdict, verdict.credential)

    def _rules_for(self, host: str | None) -> RuleRequests | RequestVerdict:
        """The rules to ask about a request for `host`, or the refusal of that host."""
        if self._policy is not self.context.requests:  # another config is in force now
            self._policy = self.context.requests
            self._decided.clear()
            self._rules = self._decide_host(self._facts)
        flow = self._facts
        if host is None or host in (flow.host, flow.address):
            return self._rules
        decided = self._decided.get(host)
        if decided is None:
            if len(self._decided) >= MAX_HOSTS:
                self._decided.clear()
            context = self.context
            captured = context.config.capture.dns.capture
            from_dns = context.names.gave(host, flow.address, context.now()) is True if captured else None
            facts = replace(flow, host=host, named_by_client=True, address_from_dns=from_dns)
            decided = self._decided[host] = self._decide_host(facts)
        return decided

    def _decide_host(self, facts: FlowFacts) -> RuleRequests | RequestVerdict:
        verdict = self.context.decide(facts)
        if verdict.decision is not Decision.DENY:
            return self._policy.for_rule(verdict.rule)
        return denied(f"Denied by policy: {verdict.rule or 'default action'}", rule=verdict.rule)

    def _with_credential(self, facts: RequestFacts, verdict: RequestVerdict, credential: Credential) -> RequestVerdict:
        flow = self._facts
        # Only where the server has proved with its certificate that it is the host the rule is about.
        if flow.protocol is not Protocol.TLS or not flow.named_by_client or facts.host != flow.host:
            return denied(
                "Refused: a credential is only sent over TLS, to the host that the connection was made for.",
                RequestError.CREDENTIAL_MISDIRECTED,
                rule=verdict.rule,
            )
        return self.context.credentials.added(facts, verdict, credential, self._anchor)

    def _anchor(self) -> bytes | None:
        """The root that the server's certificate rests on, looked up once."""
        if self._root is None and self.server is not None:
            self._root = self.server.anchor()
        return self._root
