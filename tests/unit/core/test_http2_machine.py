"""A client and a server of the `h2` package do what they like, with the relay between them, bytes in any portions.

What is sent is what arrives, but where a rule says otherwise; and neither ever sees what is not HTTP/2 (h2 raises then).
"""

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from lab.http2_pair import Pair
from weir_sidecar.contract.request import RequestDecision, RequestError
from weir_sidecar.core.http_policy import ALLOWED, Edits, RequestVerdict

EDITS = Edits(frozenset((b"x-ours",)), ((b"x-ours", b"set"),))
DENY = RequestDecision.DENY
VERDICTS = {
    b"/": ALLOWED,
    b"/deny": RequestVerdict(DENY, "deny", 403, b"no"),
    b"/deny-slowly": RequestVerdict(DENY, "deny", 403, b"no", delay=1.0),
    b"/abort": RequestVerdict(DENY, "abort", abort=True, error=RequestError.ABORTED_BY_RULE),
    b"/edit": RequestVerdict(RequestDecision.ALLOW, "edit", request_edits=EDITS, response_edits=EDITS),
    b"/slow": RequestVerdict(RequestDecision.ALLOW, "slow", delay=1.0),
}
FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b"x-a", b"x-b", b"x-ours", b"cookie"]),
        st.sampled_from([b"1", b"2", b"v" * 300]) | st.binary(max_size=8).map(bytes.hex).map(str.encode),
    ),
    max_size=4,
)
BODY = st.binary(max_size=50) | st.just(b"b" * 9000)
CODES = h2.settings.SettingCodes


class Conversation(RuleBasedStateMachine):
    asking = Bundle("asking")
    """Streams whose request is not all sent."""
    asked = Bundle("asked")

    def __init__(self) -> None:
        super().__init__()
        self.size = 65536
        self.pair = Pair(lambda facts: VERDICTS[facts.path], sizes=self._portions())
        self.tables = {True: 4096, False: 4096}
        self.sent: dict[int, tuple[list, bytearray]] = {}
        self.replied: dict[int, tuple[list, bytearray]] = {}
        self.cut: set[int] = set()
        """Streams that one side reset: what of them arrives may be less than was sent."""

    def _portions(self):
        while True:
            yield self.size

    def _try(self, call, *args, **named) -> bool:
        """Do as h2 allows at this moment."""
        try:
            call(*args, **named)
        except (h2.exceptions.ProtocolError, KeyError):
            return False
        return True

    @rule(target=asked, path=st.sampled_from(sorted(VERDICTS)), fields=FIELDS, body=BODY, trailers=st.booleans())
    def ask(self, path, fields, body, trailers):
        stream = self.pair.client.get_next_available_stream_id()
        self._ask(stream, path, fields, end=False)
        self._send(stream, body)
        if trailers:
            self._try(self.pair.client.send_headers, stream, [("x-a", "trailer")], end_stream=True)
        else:
            self._try(self.pair.client.end_stream, stream)
        return stream

    @rule(target=asking, path=st.sampled_from(sorted(VERDICTS)), fields=FIELDS)
    def begin_to_ask(self, path, fields):
        stream = self.pair.client.get_next_available_stream_id()
        self._ask(stream, path, fields, end=False)
        return stream

    @rule(target=asked, path=st.sampled_from(sorted(VERDICTS)), fields=FIELDS)
    def ask_without_body(self, path, fields):
        stream = self.pair.client.get_next_available_stream_id()
        self._ask(stream, path, fields, end=True)
        return stream

    def _ask(self, stream, path, fields, *, end):
        head = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", path), (b":authority", b"a.test"), *fields]
        self.pair.client.send_headers(stream, head, end_stream=end)
        self.sent[stream] = (head, bytearray())

    def _send(self, stream, body):
        client = self.pair.client
        try:
            room = client.local_flow_control_window(stream)
        except (h2.exceptions.ProtocolError, KeyError):
            return
        if len(body) <= room and self._try(
            client.send_data, stream, body, pad_length=3 if len(body) < 40 and room > 60 else None
        ):
            self.sent[stream][1].extend(body)

    @rule(stream=asking, body=BODY)
    def send_more(self, stream, body):
        self._send(stream, body)

    @rule(target=asked, stream=consumes(asking))
    def end_asking(self, stream):
        self._try(self.pair.client.end_stream, stream)
        return stream

    @rule(stream=asked)
    def take_back(self, stream):
        if self._try(self.pair.client.reset_stream, stream, h2.errors.ErrorCodes.CANCEL):
            self.cut.add(stream)

    @rule(stream=asked, fields=FIELDS, body=BODY, end=st.booleans())
    def answer(self, stream, fields, body, end):
        server = self.pair.server
        if stream not in {e.stream_id for e in self.pair.at_server(h2.events.RequestReceived)}:
            return
        if stream not in self.replied:
            head = [(b":status", b"200"), *fields]
            if not self._try(server.send_headers, stream, head):
                return
            self.replied[stream] = (head, bytearray())
        try:
            room = server.local_flow_control_window(stream)
        except (h2.exceptions.ProtocolError, KeyError):
            return
        if len(body) <= room and self._try(server.send_data, stream, body, end_stream=end):
            self.replied[stream][1].extend(body)

    @rule(stream=asked)
    def break_off(self, stream):
        if stream in self.replied and self._try(self.pair.server.reset_stream, stream):
            self.cut.add(stream)

    @rule(size=st.sampled_from([0, 64, 2000]), side=st.booleans())
    def resize_the_table(self, size, side):
        end = self.pair.client if side else self.pair.server
        if self.tables[side] == 4096:  # of several changes in a row hpack makes updates that it refuses itself
            self.tables[side] = size
            end.update_settings({CODES.HEADER_TABLE_SIZE: size})

    @rule(size=st.sampled_from([100, 65535, 200000]))
    def resize_the_clients_windows(self, size):
        self.pair.client.update_settings({CODES.INITIAL_WINDOW_SIZE: size})

    @rule()
    def widen_the_servers_windows(self):
        # Not narrower: what waits with a delayed request would come after the word that it must not.
        self.pair.server.update_settings({CODES.INITIAL_WINDOW_SIZE: 200000})

    @rule(side=st.booleans())
    def ping(self, side):
        (self.pair.client if side else self.pair.server).ping(b"12345678")

    @rule()
    def acknowledge(self):
        self._run()
        for end, events in ((self.pair.client, self.pair.client_events), (self.pair.server, self.pair.server_events)):
            for event in events:
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self._try(end.acknowledge_received_data, event.flow_controlled_length, event.stream_id)
                    event.flow_controlled_length = 0
        self._run()

    @rule(size=st.sampled_from([1, 5, 9, 10, 100, 65536]))
    def run_in_portions(self, size):
        self.size = size
        self._run()

    @rule()
    def wait(self):
        self._run()
        self.pair.timers.pass_time(1.0)
        self._run()

    def _run(self):
        self.pair.run()

    @invariant()
    def nothing_failed(self):
        assert self.pair.relay.failed is None

    def teardown(self):
        for _ in range(3):
            self.wait()
            self.acknowledge()
        assert not self.pair.relay._waiting
        for stream, (head, body) in self.sent.items():
            verdict = VERDICTS[head[2][1]]
            arrived = self.pair.at_server(h2.events.RequestReceived, stream)
            if verdict.decision is DENY:
                assert not arrived
                self._check_refusal(stream, verdict)
            elif arrived:
                assert list(arrived[0].headers) == self._edited(head, verdict.request_edits)
                self._check_body(self.pair.at_server(h2.events.DataReceived, stream), body, stream)
            else:
                assert stream in self.cut
        for stream, (head, body) in self.replied.items():
            verdict = VERDICTS[self.sent[stream][0][2][1]]
            answers = self.pair.at_client(h2.events.ResponseReceived, stream)
            if answers:
                assert list(answers[0].headers) == self._edited(head, verdict.response_edits)
            self._check_body(self.pair.at_client(h2.events.DataReceived, stream), body, stream)
            told = self.pair.requests.all[stream]
            assert stream in self.cut or told.response_bytes == len(body)
            assert len(told.ends) <= 1
        self.pair.relay.close(RequestError.CLIENT_GONE)
        assert all(len(told.ends) == 1 for told in self.pair.requests.all.values())

    def _check_refusal(self, stream, verdict):
        if stream in self.cut:
            return
        if verdict.abort:
            assert len(self.pair.at_client(h2.events.StreamReset, stream)) == 1
        else:
            (answer,) = self.pair.at_client(h2.events.ResponseReceived, stream)
            assert dict(answer.headers)[b":status"] == b"403"

    def _check_body(self, events, body, stream):
        got = b"".join(event.data for event in events)
        assert got == bytes(body) or (stream in self.cut and bytes(body).startswith(got))

    @staticmethod
    def _edited(head, edits):
        if edits is None:
            return head
        pseudo = [field for field in head if field[0].startswith(b":")]
        return pseudo + edits.apply(head[len(pseudo) :])


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
