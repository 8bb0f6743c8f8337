"""The config stream's server side, as `contract.stream` says: one request for each connected sidecar."""

import asyncio
import logging
import random
from collections.abc import Callable

import msgspec
from aiohttp import web
from aiohttp.streams import StreamReader

from weir_operator.kube.errors import ApiError
from weir_operator.serving.exception_writer import ExceptionWriter
from weir_operator.serving.knowledge import CapturedPod, Knowledge
from weir_operator.serving.log import facts
from weir_operator.serving.metrics import Metrics
from weir_operator.serving.sessions import Session, Sessions
from weir_operator.serving.tokens import STATUS, Caller, Refusal, TokenReviewer
from weir_sidecar.contract.stream import (
    HEALTH_SECONDS,
    MAX_LINE,
    PING_SECONDS,
    SILENCE_SECONDS,
    Applied,
    Health,
    Hello,
    Trust,
    Up,
)

PATH = "/v1/namespaces/{namespace}/pods/{pod}/stream"
HELLO_SECONDS = 10.0
"""For the first line."""
DEAF_SECONDS = 20.0
"""A sidecar that takes no bytes for so long is let go."""
REVIEW_SECONDS = 600.0
"""The longest time after which the token of an open stream is reviewed again."""
MESSAGE_SECONDS = 0.01
BYTES_A_SECOND = 1 << 20
"""What a message costs its sender: one that talks without end is read slowly."""
_PROMISED_SECONDS = HEALTH_SECONDS + SILENCE_SECONDS
"""A sidecar that says nothing for so long is gone: it owes a word each `HEALTH_SECONDS`."""

_ORDERLY = frozenset({Refusal.STOPPING, Refusal.REPLACED, Refusal.POD_GONE})

_log = logging.getLogger(__name__)
_decoder: msgspec.json.Decoder[Up] = msgspec.json.Decoder(Up)


class RefusedError(Exception):
    """A stream that is not begun, or ended."""

    def __init__(self, cause: Refusal) -> None:
        super().__init__(cause.value)
        self.cause = cause


class StreamServer:
    """Authenticates sidecars, takes what they tell, and tells them what waits for them."""

    def __init__(  # noqa: PLR0913 - the parts that a stream touches
        self,
        *,
        knowledge: Knowledge,
        sessions: Sessions,
        reviewer: TokenReviewer,
        writer: ExceptionWriter,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._knowledge = knowledge
        self._sessions = sessions
        self._reviewer = reviewer
        self._writer = writer
        self._metrics = metrics
        self._clock = clock
        self._stopping = False

    def drain(self, seconds: float) -> None:
        """Take no more streams, and end the open ones within this time."""
        self._stopping = True
        self._sessions.drain(seconds)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One sidecar's stream, from its first byte to its last."""
        try:
            token = _token(request)
            pod = await self._authenticate(request, token)
        except RefusedError as error:
            self._refused(request, error.cause)
            return web.json_response({"error": error.cause.value}, status=STATUS[error.cause])
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            await self._serve(pod, token, Lines(request.content), response)
        except RefusedError as error:
            self._refused(request, error.cause)
            if error.cause is Refusal.NOT_READING and request.transport is not None:
                request.transport.abort()
        except (ConnectionError, web.RequestPayloadError):
            _log.debug("a sidecar hung up", extra=facts(path=request.path))
        return response

    async def _serve(self, pod: CapturedPod, token: str, lines: "Lines", response: web.StreamResponse) -> None:
        """Listen and talk until the sidecar hangs up. Raises `RefusedError` where it is us who end it."""
        session = self._sessions.open(pod, await _hello(lines))
        self._metrics.opened.add()
        tasks = [
            asyncio.ensure_future(one) for one in (self._listen(session, lines), self._talk(session, token, response))
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._sessions.close(session)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, session: Session, lines: "Lines") -> None:
        puzzled = False
        while (line := await lines.next(_PROMISED_SECONDS)) is not None:
            try:
                self._hear(session, _decoder.decode(line))
            except (msgspec.MsgspecError, UnicodeError) as error:
                # A newer sidecar may say more than this version knows.
                self._metrics.unreadable.add()
                if not puzzled:
                    about = facts(namespace=session.pod.namespace, pod=session.pod.name, problem=str(error))
                    _log.warning("a sidecar's message cannot be read, and is left out", extra=about)
                puzzled = True
            await asyncio.sleep(MESSAGE_SECONDS + len(line) / BYTES_A_SECOND)

    def _hear(self, session: Session, message: Up) -> None:
        match message:
            case Applied():
                self._metrics.applied.add("applied" if message.problem is None else "refused")
                if message.problem is not None:
                    about = facts(namespace=session.pod.namespace, pod=session.pod.name, problem=message.problem)
                    _log.warning("a sidecar did not take its config", extra=about)
                self._sessions.applied(session, message)
            case Trust(entries=entries):
                self._writer.report(session.pod, entries)
            case Health():
                self._sessions.health(session, message)
            case Hello():
                pass  # that it said something is what counts

    async def _talk(self, session: Session, token: str, response: web.StreamResponse) -> None:
        review_at = self._clock() + REVIEW_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311 - spread, not secret
        while session.ended is None:
            config, exceptions = await session.letters(PING_SECONDS)
            try:
                async with asyncio.timeout(DEAF_SECONDS):
                    await response.write((config or b"") + (exceptions or b"") or b"\n")
            except TimeoutError as error:
                raise RefusedError(Refusal.NOT_READING) from error
            self._metrics.configs_sent.add(amount=config is not None)
            self._metrics.exceptions_sent.add(amount=exceptions is not None)
            if self._clock() >= review_at:
                review_at = self._clock() + REVIEW_SECONDS
                await self._review_again(token)
        raise RefusedError(session.ended)

    async def _review_again(self, token: str) -> None:
        """A token that has expired since, or whose pod is gone, ends its stream; an API server that is away does not."""
        try:
            caller = await self._reviewer.review(token)
        except ApiError as error:
            _log.warning("a token could not be reviewed again; its stream goes on", extra=facts(problem=str(error)))
            return
        if isinstance(caller, Refusal):
            raise RefusedError(caller)

    def _refused(self, request: web.Request, cause: Refusal) -> None:
        self._metrics.refusals.add(cause.value)
        about = facts(
            namespace=request.match_info["namespace"],
            pod=request.match_info["pod"],
            address=request.remote,
            cause=cause.value,
        )
        level = logging.INFO if cause in _ORDERLY else logging.WARNING
        _log.log(level, "a config stream was refused or ended", extra=about)

    async def _authenticate(self, request: web.Request, token: str) -> CapturedPod:
        """The pod that asks. Raises `RefusedError`."""
        if self._stopping:
            raise RefusedError(Refusal.STOPPING)
        if not self._knowledge.complete:
            raise RefusedError(Refusal.NOT_READY)
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        try:
            caller = await self._reviewer.review(token)
            if isinstance(caller, Refusal):
                raise RefusedError(caller)
            if (caller.namespace, caller.pod) != (namespace, name):
                raise RefusedError(Refusal.OTHER_POD)
            return await self._pod(caller)
        except ApiError as error:
            _log.warning("a token or a pod could not be asked about", extra=facts(problem=str(error)))
            raise RefusedError(Refusal.API_UNAVAILABLE) from error

    async def _pod(self, caller: Caller) -> CapturedPod:
        """The caller's pod; one that is not known yet is asked for. Raises `RefusedError` and `ApiError`."""
        pod = self._knowledge.pod(caller.namespace, caller.pod)
        if pod is None or pod.uid != caller.uid:
            pod = await self._knowledge.fetch_pod(caller.namespace, caller.pod)
        if pod is None or pod.uid != caller.uid:
            raise RefusedError(Refusal.NO_SUCH_POD)
        if not pod.captured:
            raise RefusedError(Refusal.NOT_CAPTURED)
        return pod


class Lines:
    """The lines of a request's body."""

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._buffer = bytearray()

    async def next(self, seconds: float) -> bytes | None:
        """The next line, without its newline; None: there is none. Raises `RefusedError` if it does not come in time."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_LINE:
                raise RefusedError(Refusal.LINE_TOO_LONG)
            try:
                async with asyncio.timeout(seconds):
                    chunk = await self._content.readany()
            except TimeoutError as error:
                raise RefusedError(Refusal.SILENT) from error
            if not chunk:
                return None
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line


async def _hello(lines: Lines) -> Hello:
    """The first message. Raises `RefusedError`."""
    line = await lines.next(HELLO_SECONDS)
    try:
        message = _decoder.decode(line or b"")
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise RefusedError(Refusal.BAD_HELLO) from error
    if not isinstance(message, Hello):
        raise RefusedError(Refusal.BAD_HELLO)
    return message


def _token(request: web.Request) -> str:
    """The bearer token (RFC 6750, section 2.1). Raises `RefusedError`."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise RefusedError(Refusal.NO_TOKEN)
    return token.strip()
