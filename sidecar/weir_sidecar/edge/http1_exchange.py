"""What the HTTP/1.1 relay keeps of a request on its way, and how it passes bytes on without copying them."""

from weir_sidecar.contract.request import MessageVersion, RequestError
from weir_sidecar.core.placeholders import BodyWatch
from weir_sidecar.edge.requests import Request
from weir_sidecar.wire.http1 import AnswerHead, RequestHead
from weir_sidecar.wire.http1_body import Body

WHY = {431: RequestError.HEAD_TOO_LARGE, 403: RequestError.PLACEHOLDER_MISUSED}
"""What is wrong with a request, by the status that what is malformed in it has; else MALFORMED_REQUEST."""


class Exchange:
    """A request on its way, and its answer. `answer`: ours, in the upstream's place."""

    __slots__ = ("answer", "asked", "method", "request", "status", "told", "tunnels")

    def __init__(self, request: Request, method: bytes) -> None:
        self.request = request
        self.method = method
        self.tunnels = False
        self.answer: bytes | None = None
        self.status: int | None = None
        self.asked = False
        self.told = False


class Passage:
    """What is passed on of some bytes: the same bytes, as long as nothing is put in the place of some of them."""

    __slots__ = ("_begun", "_data", "_pieces")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._begun = 0
        self._pieces: list[bytes] = []

    def replace(self, start: int, end: int, new: bytes) -> None:
        """Put `new` in the place of what is from `start` to `end`; places come in order."""
        self._pieces += (self._data[self._begun : start], new)
        self._begun = end

    def passed(self, end: int) -> bytes:
        """All of it, up to `end`."""
        rest = self._data[self._begun : end]  # the same object, where it is the whole
        return b"".join((*self._pieces, rest)) if self._pieces else rest


def request_body(request: Request, head: RequestHead, watch: BodyWatch | None) -> Body:
    """The body that follows a request's head, shown to who watches it and to who captures it."""
    body = Body(head.length, chunked=head.chunked)
    body.watch = watch
    if request.capture is not None:
        body.sink = request.capture.request.sink
    return body


def answer_body(request: Request, head: AnswerHead) -> Body:
    """The body that follows the head of a final answer. Who captures is told of both."""
    body = Body(head.length, chunked=head.chunked)
    if request.capture is not None:
        body.sink = request.capture.replied(message_version(head.minor), head.fields())
    return body


def message_version(minor: int) -> MessageVersion:
    """The version of a head, by its second number."""
    return MessageVersion.HTTP1_1 if minor else MessageVersion.HTTP1_0


def discard(_: bytes) -> bytes:
    """What a way passes on of bytes that nobody is to get."""
    return b""
