"""The HTTP/2 relay without its sockets: two lanes of frames, the streams that both speak of, and what rules make of them.

Stream ids, flow control, SETTINGS, PING and GOAWAY are the two ends' own. A refused request is answered here, and the
upstream never hears of its stream: it takes a later id for the proof that this one is closed (RFC 9113, section 5.1.1).
For the same reason requests go on in the order of their ids: those that follow a delayed one wait for it.
"""

from collections.abc import Callable

from weir_sidecar.contract.request import RequestDecision, RequestError
from weir_sidecar.core.http2_lane import STALL, Handler, Lane
from weir_sidecar.core.http2_message import are_trailers, read_request, refusal, status_of
from weir_sidecar.core.http2_stream import (
    MAX_HELD_BYTES,
    After,
    ClientWindow,
    OpenStreams,
    RefusedStreams,
    Request,
    Requests,
    Stream,
    WaitingStreams,
    no_promise,
)
from weir_sidecar.core.http_policy import RequestFacts
from weir_sidecar.wire import http2
from weir_sidecar.wire.hpack import Block, HeaderListTooLargeError, HPACKError
from weir_sidecar.wire.http2 import END_STREAM, ErrorCode, FrameError, HeaderBlock, Piece, Setting


class HTTP2Relay:
    """Both directions of one connection. Feed each side's bytes, and send on what `take` gives for the other.

    `wake` is called when there is something to take, or to read on, that no feeding brought about.
    """

    def __init__(self, requests: Requests[Request], after: After, wake: Callable[[], None]) -> None:
        self._requests = requests
        self._after = after
        self._wake = wake
        up: dict[int, Handler] = {
            http2.HEADERS: self._up_headers,
            http2.DATA: self._up_data,
            http2.RST_STREAM: self._up_reset,
            http2.SETTINGS: self._up_settings,
            http2.WINDOW_UPDATE: self._up_window,
            http2.PUSH_PROMISE: no_promise,
        }
        down: dict[int, Handler] = {
            http2.HEADERS: self._down_headers,
            http2.DATA: self._down_data,
            http2.RST_STREAM: self._down_reset,
            http2.SETTINGS: self._down_settings,
            http2.PUSH_PROMISE: self._down_promise,
            http2.GOAWAY: self._down_goaway,
        }
        self._up = Lane(up, client=True)
        self._down = Lane(down, client=False)
        self._streams = OpenStreams(requests.watch)
        self._waiting = WaitingStreams()
        self._refused = RefusedStreams()
        self._window = ClientWindow()
        self._read: tuple[Block, RequestFacts] | None = None
        """The last request's header list and what it asks for: the next is most often the same."""
        self.failed: ErrorCode | None = None
        """Why the connection must end: send what is left, close both sides, and pass on nothing more."""
        self.client_failed = False
        """Whether it was the client that said what cannot go on."""

    def from_client(self, data: bytes) -> None:
        """Take the client's bytes."""
        self._feed(self._up, data)

    def from_upstream(self, data: bytes) -> None:
        """Take the upstream's bytes."""
        self._feed(self._down, data)

    def for_client(self) -> bytes:
        """What the client is to be sent, once."""
        return self._down.take()

    def for_upstream(self) -> bytes:
        """What the upstream is to be sent, once."""
        return self._up.take()

    @property
    def reads_client(self) -> bool:
        """Whether more of the client's bytes may be fed."""
        return self._waiting.size < MAX_HELD_BYTES and self._down.backlog < MAX_HELD_BYTES

    @property
    def reads_upstream(self) -> bool:
        """Whether more of the upstream's bytes may be fed."""
        return not self._down.stalled and self._up.backlog < MAX_HELD_BYTES

    def close(self, error: RequestError) -> None:
        """The connection is over, and with it every request that has not ended."""
        self._streams.close(error)
        self._up.close()
        self._down.close()
        self._waiting.clear()

    def _feed(self, lane: Lane, data: bytes | None) -> None:
        if self.failed is not None:
            return
        try:
            if data is None:
                lane.go_on()
            else:
                lane.feed(data, joins=not self._window.owes)  # else each frame must be able to wait
        except FrameError as error:
            self._fail(lane, error.code, str(error))
        except HeaderListTooLargeError as error:
            self._fail(lane, ErrorCode.ENHANCE_YOUR_CALM, str(error))
        except HPACKError as error:
            self._fail(lane, ErrorCode.COMPRESSION_ERROR, str(error))

    def _fail(self, lane: Lane, code: ErrorCode, text: str) -> None:
        """The sender of this lane said what cannot go on: it is told why, the other only that it is over."""
        self.failed = code
        self.client_failed = lane is self._up
        mine = http2.goaway(self._refused.last_seen if lane is self._up else 0, code, text)
        other = http2.goaway(0 if lane is self._up else self._refused.last_seen, ErrorCode.INTERNAL_ERROR)
        self._down.finish(mine if lane is self._up else other)
        self._up.finish(other if lane is self._up else mine)

    # From the client.

    def _up_headers(self, piece: Piece) -> bytes | None:
        up, number = self._up, piece.stream
        framed, block = up.read_block(piece)
        stream = self._streams.get(number)
        if stream is not None:
            return self._up_trailers(piece, stream, framed, block)
        if number <= self._refused.last_seen:  # of a stream that is over, here or at the upstream
            up.kept_back(block)
            return b""
        if number % 2 == 0:
            raise FrameError(ErrorCode.PROTOCOL_ERROR, f"a client opens stream {number}")
        self._refused.last_seen = number
        if not self._streams.has_room(framed):
            self._refuse(piece, block, ErrorCode.REFUSED_STREAM)
            return b""
        facts = self._read[1] if self._read is not None and self._read[0] is block else read_request(block)
        if facts is None:
            return self._unreadable(piece, framed, block)
        self._read = block, facts
        return self._judge(piece, framed, block, facts)

    def _unreadable(self, piece: Piece, framed: HeaderBlock, block: Block) -> bytes | None:
        request = self._requests.unreadable(piece.stream, RequestError.MALFORMED_REQUEST, 400)
        if request.verdict.decision is RequestDecision.DENY:
            self._refuse(piece, block, ErrorCode.PROTOCOL_ERROR)
            request.finished(None)
            return b""
        return self._let_in(piece, framed, block, request)

    def _judge(self, piece: Piece, framed: HeaderBlock, block: Block, facts: RequestFacts) -> bytes | None:
        request = self._requests.started(piece.stream, facts)
        verdict = request.verdict
        if verdict.decision is RequestDecision.DENY:
            self._up.kept_back(block)
            self._refused.add(piece.stream)
            if verdict.delay:
                self._streams.delay(piece.stream, request, framed)
                self._after(verdict.delay, lambda: self._deny_later(piece, facts))
            else:
                self._deny(piece, facts, request)
            return b""
        return self._let_in(piece, framed, block, request)

    def _let_in(self, piece: Piece, framed: HeaderBlock, block: Block, request: Request) -> bytes | None:
        verdict = request.verdict
        asked = bool(piece.flags & END_STREAM)
        stream = self._streams.open(piece.stream, request, framed, asked=asked)
        if not verdict.delay and not self._waiting:
            self._refused.last_sent = piece.stream
            return self._up.written(piece, framed, block, verdict.request_edits)
        # Others may pass it, so that nothing may refer to its block.
        self._up.rewrites = True
        frames = self._up.written(piece, framed, block, verdict.request_edits)
        assert frames is not None
        self._waiting.enter(piece.stream, stream, frames)
        if verdict.delay:
            stream.ripe = False
            self._after(verdict.delay, lambda: self._ripen(stream))
        return b""

    def _up_trailers(self, piece: Piece, stream: Stream, framed: HeaderBlock, block: Block) -> bytes | None:
        if stream.asked:
            raise FrameError(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {piece.stream}, after its end")
        if not piece.flags & END_STREAM or not are_trailers(block):
            self._up.kept_back(block)
            return self._break(piece.stream, stream)
        if stream.watch is not None and stream.watch.found(block.fields):
            self._up.kept_back(block)
            return self._break(piece.stream, stream, RequestError.PLACEHOLDER_MISUSED)
        self._streams.asked(piece.stream, stream)
        frames = self._up.written(piece, framed, block)
        return frames if stream.held is None else self._kept(stream, piece, frames)

    def _up_data(self, piece: Piece) -> bytes | None:
        stream = self._streams.get(piece.stream)
        if stream is None:
            if piece.stream not in self._refused:
                return None
            self._give_back(piece.length)
            return b""
        stream.request.request_bytes += piece.length - piece.padding
        if stream.tap is not None:
            stream.tap.up(self._up.buffer, piece)
        if stream.watch is not None and stream.watch.finds_in(self._up.buffer, http2.payloads(self._up.buffer, piece)):
            ended = self._break(piece.stream, stream, RequestError.PLACEHOLDER_MISUSED)
            if not piece.first:  # what has gone on of the frame cannot be taken back but with the connection
                raise FrameError(ErrorCode.PROTOCOL_ERROR, "a placeholder for a credential, where it does not belong")
            self._give_back(piece.length)
            return ended
        if piece.last and piece.flags & END_STREAM:
            self._streams.asked(piece.stream, stream)
        return None if stream.held is None else self._kept(stream, piece, None)

    def _up_reset(self, piece: Piece) -> bytes | None:
        stream = self._streams.get(piece.stream)
        if stream is None:
            return b"" if piece.stream in self._refused else None
        held = stream.held is not None
        if held:
            self._drop(piece.stream, stream)
        self._streams.end(piece.stream, stream, RequestError.CLIENT_GONE)
        return b"" if held else None

    def _up_settings(self, piece: Piece) -> bytes | None:
        if piece.flags & http2.ACK:
            self._up.acknowledged()
            return None
        values = http2.settings(self._up.buffer, piece)
        self._window.stream = dict(values).get(Setting.INITIAL_WINDOW_SIZE, self._window.stream)
        return self._down.receiver_settings(values)

    def _up_window(self, piece: Piece) -> bytes | None:
        if piece.stream:
            stream = self._streams.get(piece.stream)
            if stream is None:
                return b"" if piece.stream in self._refused else None
            return None if stream.held is None else self._kept(stream, piece, None)
        increment = http2.number(self._up.buffer, piece)
        granted = self._window.granted(increment)
        if self._down.stalled:
            self._feed(self._down, None)
        if granted == increment:
            return None
        return http2.window_update(0, granted) if granted else b""

    # From the upstream.

    def _down_headers(self, piece: Piece) -> bytes | None:
        down = self._down
        framed, block = down.read_block(piece)
        stream = self._streams.get(piece.stream)
        if stream is None:
            if piece.stream in self._refused:
                down.kept_back(block)
                return b""
            return down.written(piece, framed, block)
        edits = None
        if stream.status is None:
            status = status_of(block)
            stream.request.answered()
            if status is None or status >= 200:
                stream.status = status or 0
                edits = stream.request.verdict.response_edits
                if stream.tap is not None:
                    stream.tap.replied(stream.request.upgraded, stream.status, block)
        if piece.flags & END_STREAM:
            self._streams.replied(piece.stream, stream)
        return down.written(piece, framed, block, edits)

    def _down_data(self, piece: Piece) -> bytes | None:
        stream = self._streams.get(piece.stream)
        if (stream is None or stream.held is not None) and piece.stream in self._refused:
            if piece.length:  # of a push, that the client never hears of
                self._up.insert(http2.window_update(0, piece.length))
            return b""
        if piece.begun and not self._window.takes(piece.begun):
            return STALL
        if stream is not None:
            stream.request.response_bytes += piece.length - piece.padding
            if stream.tap is not None:
                stream.tap.down(self._down.buffer, piece)
            if piece.last and piece.flags & END_STREAM:
                self._streams.replied(piece.stream, stream)
        return None

    def _down_reset(self, piece: Piece) -> bytes | None:
        stream = self._streams.get(piece.stream)
        if stream is not None:
            self._streams.end(piece.stream, stream, RequestError.UPSTREAM_GONE)
        return b"" if piece.stream in self._refused else None

    def _down_settings(self, piece: Piece) -> bytes | None:
        if piece.flags & http2.ACK:
            self._down.acknowledged()
            return None
        return self._up.receiver_settings(http2.settings(self._down.buffer, piece))

    def _down_promise(self, piece: Piece) -> bytes | None:
        """A push is a request that the server makes itself; it goes on where the client's own would."""
        framed, block = self._down.read_block(piece)
        facts = read_request(block)
        if facts is None:
            request = self._requests.unreadable(framed.promised, RequestError.MALFORMED_REQUEST, 400)
        else:
            request = self._requests.started(framed.promised, facts)
        if request.verdict.decision is RequestDecision.DENY or not self._streams.has_room(framed):
            self._down.kept_back(block)
            self._refused.add(framed.promised)
            self._up.insert(http2.rst_stream(framed.promised, ErrorCode.REFUSED_STREAM))
            request.finished(None)
            return b""
        self._streams.open(framed.promised, request, framed, asked=True)
        return self._down.written(piece, framed, block)

    def _down_goaway(self, piece: Piece) -> None:
        for number, stream in self._streams.later_than(http2.number(self._down.buffer, piece)):
            if stream.held is not None:
                self._drop(number, stream)
            self._streams.end(number, stream, RequestError.UPSTREAM_GONE)

    # Refusing.

    def _deny_later(self, piece: Piece, facts: RequestFacts) -> None:
        request = self._streams.delayed(piece.stream)
        if request is not None:
            self._deny(piece, facts, request)
            self._wake()

    def _deny(self, piece: Piece, facts: RequestFacts, request: Request) -> None:
        """Answer as the rule says. The body is left out where the client's windows have no room for it."""
        number, down = piece.stream, self._down
        if request.verdict.abort:
            down.insert(http2.rst_stream(number, ErrorCode.INTERNAL_ERROR))
            request.finished(None)
            return
        answer = refusal(facts, request.verdict)
        if answer.body and not self._window.takes_ours(len(answer.body)):
            answer = answer.without_body()
        down.answer(number, answer.fields, answer.body)
        if not piece.flags & END_STREAM:
            down.insert(http2.rst_stream(number, ErrorCode.NO_ERROR))
        request.response_bytes = len(answer.body)
        request.finished(answer.status)

    def _refuse(self, piece: Piece, block: Block, code: ErrorCode) -> None:
        self._up.kept_back(block)
        self._refused.add(piece.stream)
        self._down.insert(http2.rst_stream(piece.stream, code))

    def _break(self, number: int, stream: Stream, error: RequestError = RequestError.MALFORMED_REQUEST) -> bytes:
        """The request became what may not be sent on its way: both sides are told that its stream is over."""
        self._down.insert(http2.rst_stream(number, ErrorCode.PROTOCOL_ERROR))
        held = stream.held is not None
        if held:
            self._drop(number, stream)
        self._streams.end(number, stream, error)
        self._refused.add(number)
        return b"" if held else http2.rst_stream(number, ErrorCode.PROTOCOL_ERROR)

    def _give_back(self, length: int) -> None:
        """The client's DATA went nowhere: the connection's window, which the upstream keeps, must not shrink by it."""
        if length:
            self._down.insert(http2.window_update(0, length))

    # Waiting.

    def _kept(self, stream: Stream, piece: Piece, frames: bytes | None) -> bytes:
        if frames is None:
            frames = self._up.buffer[piece.start : piece.end]
        self._waiting.hold(stream, frames, piece.length if piece.type == http2.DATA else 0)
        if piece.last and stream.ripe:
            self._go_on()
        return b""

    def _ripen(self, stream: Stream) -> None:
        """Its delay is over."""
        stream.ripe = True
        if self._waiting and self.failed is None:
            self._go_on()
            self._wake()

    def _go_on(self) -> None:
        """Send on what waits, as far as that is over."""
        while (due := self._waiting.due(self._up.open_stream)) is not None:
            self._refused.last_sent, frames = due
            self._up.insert(frames)

    def _drop(self, number: int, stream: Stream) -> None:
        """It will not go on."""
        self._refused.add(number)
        self._give_back(self._waiting.drop(number, stream))
