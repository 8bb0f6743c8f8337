"""Reads HTTP/1.1 beside a relay's bytes, which go through as they are unless a rule touches the request.

Requests are read strictly, since a rule that lets one through must have seen what the server sees. Answers are read to
know where they end; where that is not clear they go through blindly, and requests are read and decided all the same.
Client and upstream are connected one to one, so nobody else's request can be mistaken for this client's.

What this object holds back is bounded: one head each way, and `MAX_PENDING` requests whose answers are to come.
"""

import asyncio
from collections import deque

from weir_sidecar.contract.request import HTTPVersion, RequestDecision, RequestError
from weir_sidecar.core.http_policy import Edits, RequestFacts, RequestVerdict
from weir_sidecar.edge.http1_exchange import WHY, Exchange, Passage, answer_body, discard, message_version, request_body
from weir_sidecar.edge.http1_tunnel import Tunnel
from weir_sidecar.edge.relay import Side
from weir_sidecar.edge.relay_tls import TLSWay
from weir_sidecar.edge.requests import FlowRequests, Request
from weir_sidecar.wire import http1
from weir_sidecar.wire.http1 import AnswerHead, HeadReader, MalformedError, RequestHead
from weir_sidecar.wire.http1_answer import our_answer, wants_close
from weir_sidecar.wire.http1_body import Body

MAX_PENDING = 256
"""Requests without their answer, from which on no more is read."""
_LAST_WORD_SECONDS = 2.0
_MAX_BACKLOG = 65536
"""Bytes of our own answers for a client that does not read them."""

GONE = {Side.CLIENT: RequestError.CLIENT_GONE, Side.UPSTREAM: RequestError.UPSTREAM_GONE}
"""What became of a request without its answer, by who ended the connection."""


class HTTP1Relay:
    """Reads what two ways move. Call `attach`, then run the relay, then `close`."""

    __slots__ = (
        "_answer_body", "_asking", "_blind", "_body", "_closing", "_decided", "_down", "_heads", "_held", "_held_down",
        "_loop", "_number", "_queue", "_requests", "_timer", "_tunnel", "_up", "_waiting",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, requests: FlowRequests) -> None:
        requests.version = HTTPVersion.HTTP1
        self._loop = loop
        self._requests = requests
        self._queue: deque[Exchange] = deque()
        self._number = 0
        self._heads = HeadReader()
        self._held, self._held_down = bytearray(), bytearray()
        self._body: Body | None = None
        self._asking: Exchange | None = None
        """Whose body comes from the client."""
        self._answer_body: Body | None = None
        self._decided: Request | None = None
        """The request whose head is held until its delay is over."""
        self._waiting = self._blind = self._closing = False
        self._tunnel: Tunnel | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._up: TLSWay
        self._down: TLSWay

    def attach(self, up: TLSWay, down: TLSWay) -> None:
        """Read what these two move."""
        self._up, self._down = up, down
        up.on_bytes = self._read_requests
        down.on_bytes = self._read_answers
        down.on_end = self._upstream_ended

    def close(self, error: RequestError) -> None:
        """The relay has ended; `error` is what became of requests without their answer."""
        if self._timer is not None:
            self._timer.cancel()
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None
        if self._asking is not None:
            self._count_asked(self._asking)
            if self._asking.told:
                self._asking.request.finished(self._asking.status)
        if self._queue and self._answer_body is not None:
            self._queue[0].request.response_bytes = self._answer_body.content
        for exchange in self._queue:
            exchange.request.finished(exchange.status, error)
        self._queue.clear()
        if self._decided is not None:
            self._decided.finished(None, error)
        self._asking = self._decided = None
        self._closing = True
        # Each knows the other: without this their memory would wait for the garbage collector.
        self._up.on_bytes = self._up.on_end = self._down.on_bytes = self._down.on_end = None

    def _read_requests(self, data: bytes) -> bytes:
        whole = http1.joined(self._held, data)
        return b"" if whole is None else self._requests_in(whole)

    def _requests_in(self, data: bytes) -> bytes:
        """What of `data`, at the beginning of a head or in a body, is passed on."""
        passage = Passage(data)
        at = 0
        try:
            while at < len(data) and not self._stands_still():
                if self._body is not None:
                    at = self._body.take(data, at)
                    if self._body.done:
                        self._asked()
                    continue
                head = self._heads.request(data, at)
                if head is None:
                    break
                written = self._take(head)
                if self._decided is not None:  # its delay is not over
                    break
                if written is not None:
                    passage.replace(at, at + head.size, written)
                at += head.size
        except MalformedError as error:
            return passage.passed(at) + self._malformed(error, data[at:])
        if at < len(data) and not self._closing:
            self._held += data[at:]
        return passage.passed(at)

    def _stands_still(self) -> bool:
        return self._waiting or self._closing

    def _take(self, head: RequestHead) -> bytes | None:
        """Decide about a request. None: its head goes on as it is; else what goes on in its place, maybe nothing."""
        request = self._decided
        if request is None:
            self._number += 1
            fields = head.fields() if self._requests.asks else ()
            facts = RequestFacts(head.method, head.host, head.path, head.query, fields)
            request = self._requests.started(self._number, facts)
            if request.capture is not None:
                request.capture.request.version = message_version(head.minor)
            if request.verdict.delay:
                self._wait(request)
                return b""
        self._decided = None
        verdict = request.verdict
        exchange = Exchange(request, head.method)
        if verdict.abort:
            self._abort(exchange)
            return b""
        if verdict.decision is RequestDecision.DENY:
            # A body that nobody asked for would have to be read to its end.
            last = head.has_body or head.method == b"CONNECT" or wants_close(head)
            self._answer(exchange, verdict, last=last)
            return b""
        if self._blind and verdict.response_edits is not None:
            self._abort(exchange)  # the answer could not be changed
            return b""
        return self._let_through(exchange, verdict.request_edits, head)

    def _let_through(self, exchange: Exchange, edits: Edits | None, head: RequestHead) -> bytes | None:
        self._queue.append(exchange)
        self._asking = exchange
        fields: http1.Fields | None = None
        if head.upgrade or head.method == b"CONNECT":
            fields = http1.without_upgrade_to_http2(head.fields())
            exchange.tunnels = fields is None or any(name.lower() == b"upgrade" for name, _ in fields)
        if head.has_body:
            self._body = self._up.unread = request_body(exchange.request, head, self._requests.watch())
        else:
            self._asked()
        if len(self._queue) >= MAX_PENDING:
            self._pause()
        if edits is not None:
            fields = edits.apply(head.fields() if fields is None else fields)
        return None if fields is None else http1.write_request(head, fields)

    def _asked(self) -> None:
        """A request has gone to the upstream, whole."""
        exchange = self._asking
        assert exchange is not None
        self._count_asked(exchange)
        exchange.asked = True
        if exchange.request.capture is not None:
            exchange.request.asked()
        self._asking = self._body = None
        if exchange.told:
            exchange.request.finished(exchange.status)
        elif self._blind:
            self._queue.clear()  # there is no other: all that came before are done with
            exchange.request.finished(None, RequestError.MALFORMED_RESPONSE)
        elif exchange.tunnels:
            self._pause()  # what comes next is not HTTP, or it is: the answer tells

    def _count_asked(self, exchange: Exchange) -> None:
        if self._body is not None:
            exchange.request.request_bytes = self._body.content

    def _answer(self, exchange: Exchange, verdict: RequestVerdict, *, last: bool) -> None:
        if self._blind or self._down.backlog > _MAX_BACKLOG:
            self._abort(exchange)
            return
        exchange.answer = our_answer(verdict.status, verdict.body, exchange.method, last=last)
        exchange.status = verdict.status
        self._closing = last
        self._queue.append(exchange)
        if last:
            self._up.on_bytes = discard
            self._up.on_end = None
        ours = self._our_answers()
        if ours:
            self._down.inject(ours)
            if not self._queue and last:
                self._down.finish()
                self._linger()

    def _malformed(self, error: MalformedError, rest: bytes) -> bytes:
        """What is passed on of `rest`, which begins with what is malformed: nothing, where anything is governed."""
        why = WHY.get(error.status, RequestError.MALFORMED_REQUEST)
        if not self._requests.governs:
            if self._asking is None:
                self._number += 1
                self._requests.unreadable(self._number, why, error.status).finished(None)
            self._leave_unread()
            return rest
        if self._asking is not None:  # the upstream has its head already: there is no place for an answer
            self._asking.request.finished(self._asking.status, why)
            self._end_all()
            return b""
        self._number += 1
        request = self._requests.unreadable(self._number, why, error.status)
        self._answer(Exchange(request, b""), request.verdict, last=True)
        return b""

    def _abort(self, exchange: Exchange) -> None:
        exchange.request.finished(None)
        self._end_all()

    def _leave_unread(self) -> None:
        self._up.on_bytes = self._up.on_end = self._down.on_bytes = self._down.on_end = None
        if self._held_down:
            self._down.inject(bytes(self._held_down))
            self._held_down.clear()

    def _end_all(self) -> None:
        """Reset both ends."""
        self._closing = True
        self._up.on_bytes = discard
        self._up.on_end = None
        self._up.abort()

    def _linger(self) -> None:
        """Our last word is on its way. What the client sends is read until it has left: a close would lose the word."""
        self._timer = self._loop.call_later(_LAST_WORD_SECONDS, self._up.abort)

    # Waiting.

    def _wait(self, request: Request) -> None:
        self._decided = request
        self._pause()
        self._timer = self._loop.call_later(request.verdict.delay, self._resume)

    def _pause(self) -> None:
        self._waiting = True
        self._up.pause()

    def _resume(self) -> None:
        """Go on with what the client sent meanwhile."""
        self._waiting = False
        data = bytes(self._held)
        self._held.clear()
        passed = self._requests_in(data) if data else b""
        if passed:
            self._up.inject(passed)
        if not self._waiting:
            self._up.go_on()

    # From the upstream.

    def _read_answers(self, data: bytes) -> bytes:
        whole = http1.joined(self._held_down, data)
        return b"" if whole is None else self._answers_in(whole)

    def _answers_in(self, data: bytes) -> bytes:
        """What of `data`, at the beginning of a head or in a body, is passed on, and our own answers between."""
        passage = Passage(data)
        at, end = 0, len(data)
        try:
            while at < end and self._tunnel is None:
                if self._answer_body is not None:
                    at = self._answer_body.take(data, at)
                    if self._answer_body.done:
                        self._answered(passage, at)
                    continue
                exchange = self._asked_first()
                head = self._heads.answer(data, at, exchange.method)
                if head is None:
                    self._held_down += data[at:]
                    end = at
                    break
                edits = self._take_answer(exchange, head)
                if edits is not None:
                    passage.replace(at, at + head.size, http1.write_answer(head, edits.apply(head.fields())))
                at += head.size
                if self._is_told():
                    self._answered(passage, at)
        except MalformedError:
            return passage.passed(at) + self._go_blind(data[at:])
        if self._tunnel is not None:
            self._tunnel.came_along(passage.passed(at), data, at)
        return passage.passed(end)

    def _asked_first(self) -> Exchange:
        if not self._queue:
            raise MalformedError("an answer that nobody asked for")  # as of a server that has waited for long enough
        return self._queue[0]

    def _is_told(self) -> bool:
        return self._answer_body is not None and self._answer_body.done

    def _take_answer(self, exchange: Exchange, head: AnswerHead) -> Edits | None:
        """Take note of an answer's head; returns what is to be changed of it."""
        exchange.request.answered()
        status = head.status
        if status == 101 and not exchange.tunnels:
            raise MalformedError("101 to a request without Upgrade")
        if status < 200 and status != 101:
            return None
        exchange.status = status
        if exchange.tunnels:
            self._tunnel_or_not(exchange, head)
        if self._tunnel is None:
            self._answer_body = self._down.unread = answer_body(exchange.request, head)
        return exchange.request.verdict.response_edits

    def _tunnel_or_not(self, exchange: Exchange, head: AnswerHead) -> None:
        if head.status == 101 or (exchange.method == b"CONNECT" and head.status < 300):
            self._queue.popleft()
            held = bytes(self._held)
            self._held.clear()
            self._leave_unread()
            self._waiting = False
            self._tunnel = Tunnel(exchange, head, self._up, self._down)
            self._tunnel.begin(held)
        elif exchange.asked:
            self._loop.call_soon(self._resume_if_open)
        exchange.tunnels = False

    def _resume_if_open(self) -> None:
        if self._waiting and self._decided is None and not self._closing:
            self._resume()

    def _answered(self, passage: Passage, at: int) -> None:
        """An answer has come, whole: it ends at `at`."""
        self._told()
        if ours := self._our_answers():
            passage.replace(at, at, ours)
        if self._closing and not self._queue:
            self._down.finish_after_this()
            self._linger()

    def _told(self) -> None:
        body, self._answer_body = self._answer_body, None
        exchange = self._queue.popleft()
        assert body is not None
        exchange.request.response_bytes = body.content
        exchange.told = True
        if exchange.asked:
            exchange.request.finished(exchange.status)
        if self._waiting and len(self._queue) == MAX_PENDING - 1:
            self._loop.call_soon(self._resume_if_open)

    def _our_answers(self) -> bytes:
        """Our answers whose turn it is."""
        ours = b""
        while self._queue and self._queue[0].answer is not None:
            exchange = self._queue.popleft()
            ours += exchange.answer or b""
            exchange.request.finished(exchange.status)
        return ours

    def _go_blind(self, data: bytes) -> bytes:
        """From here on it is not known which bytes answer what."""
        self._blind = True
        self._down.on_bytes = self._down.on_end = None
        self._answer_body = None
        queue = list(self._queue)
        self._queue.clear()
        for exchange in queue:
            exchange.request.finished(exchange.status, RequestError.MALFORMED_RESPONSE)
        if any(one.answer is not None or one.request.verdict.response_edits is not None for one in queue):
            self._end_all()
            return b""
        if self._waiting and self._decided is None:
            self._loop.call_soon(self._resume_if_open)
        return data

    def _upstream_ended(self) -> bytes:
        """What was held: an answer that is cut short, as it came."""
        if self._answer_body is not None and self._answer_body.until_end:
            self._told()
        return bytes(self._held_down) + self._our_answers()
