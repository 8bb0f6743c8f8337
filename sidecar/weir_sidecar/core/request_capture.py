"""What is kept of one request and its answer on their way, where a policy asks for more than a line about them."""

import re
from collections.abc import Callable

from msgspec import UNSET, UnsetType

from weir_sidecar.contract.request import LoggedBody, LoggedMessage, MessageVersion
from weir_sidecar.core.captured import Capture, Room, told
from weir_sidecar.core.request_log import Fields, LogRules, field_of

_TEXT = re.compile(
    rb"text/|application/(?:[^;]*\+)?(?:json|xml|x-www-form-urlencoded|javascript|graphql|x-ndjson|yaml)"
)

type Sink = Callable[[bytes, int, int], None]
"""Takes the part of some bytes from a place to another."""


class _Message:
    """A request or an answer."""

    __slots__ = ("_body", "_coding", "_fields", "_held", "_kind", "_room", "_rules", "_secret", "version")

    def __init__(self, of: "RequestCapture", version: MessageVersion, fields: Fields, *, body: bool) -> None:
        rules, room = of.rules, of.room
        self.version = version
        self._rules = rules
        self._room = room
        self._secret = of.secret
        wants = body and not of.secret and rules.wants_body(fields)
        self._body = Capture(room, rules.bodies.max_bytes) if wants else None
        self._kind = field_of(fields, b"content-type") if wants else b""
        self._coding = field_of(fields, b"content-encoding") if wants else b""
        # Many requests may be on their way at once, so heads have to find room too, whole.
        size = sum(len(name) + len(value) for name, value in fields)
        self._held = room.take(size)
        self._fields: Fields | None = fields if self._held == size else None

    @property
    def sink(self) -> Sink | None:
        """What is to be given the body; None: nothing is."""
        return None if self._body is None else self._body.add

    def record(self) -> LoggedMessage:
        """What is told of it, once."""
        headers = UNSET if self._fields is None else self._rules.headers(self._fields, secret=self._secret)
        message = LoggedMessage(self.version, headers, self._told_body())
        self.release()
        return message

    def release(self) -> None:
        """Nothing more is told: it takes no room any more."""
        self._room.give_back(self._held)
        self._held = 0
        if self._body is not None:
            self._body.release()

    def _told_body(self) -> LoggedBody | UnsetType:
        body = self._body
        if body is None or not (body.kept or body.truncated):
            return UNSET
        is_text = _TEXT.match(self._kind.lower()) is not None and self._coding in (b"", b"identity")
        content, base64 = told(bytes(body.kept), is_text=is_text, truncated=body.truncated)
        return LoggedBody(content, base64, body.truncated, _value(self._kind), _value(self._coding))


class RequestCapture:
    """One request. `sent`: seconds from its beginning until it was sent whole, so far as that is known."""

    __slots__ = ("_response", "request", "room", "rules", "secret", "sent")

    def __init__(self, rules: LogRules, room: Room, version: MessageVersion, fields: Fields, *, secret: bool) -> None:
        """`secret`: a rule adds a credential, so that no values and no bodies are told, which may echo it."""
        self.rules = rules
        self.room = room
        self.secret = secret
        self.sent: float | None = None
        self.request = _Message(self, version, fields, body=rules.bodies.request)
        self._response: _Message | None = None

    def replied(self, version: MessageVersion, fields: Fields) -> Sink | None:
        """The final answer's head is there; returns what is to be given its body."""
        self._response = _Message(self, version, fields, body=self.rules.bodies.response)
        return self._response.sink

    def record(self) -> tuple[LoggedMessage, LoggedMessage | UnsetType]:
        """What is told of both, once; they take no room from then on."""
        return self.request.record(), UNSET if self._response is None else self._response.record()

    def release(self) -> None:
        """Nothing is told: they take no room any more."""
        self.request.release()
        if self._response is not None:
            self._response.release()


def _value(data: bytes) -> str | None:
    return data.decode("utf-8", "backslashreplace") if data else None
