"""The sidecar's end of the config stream (`contract.stream`): hears configs and words, tells trust and health, for ever.

It is a guest on the loop that serves flows: it never blocks, what it keeps is bounded, and nothing that happens to it, or
that a server says, reaches a flow. Without it the last good config stays in force.
"""

import asyncio
import re
from collections.abc import Callable, Iterable

import msgspec

from weir_sidecar.contract import config as contract
from weir_sidecar.contract.config import ConfigError, SidecarConfig, Stream
from weir_sidecar.contract.stream import (
    HEALTH_SECONDS,
    MAX_LINE,
    SILENCE_SECONDS,
    Applied,
    Exceptions,
    Health,
    Hello,
    Trust,
    Up,
)
from weir_sidecar.core.backoff import Backoff
from weir_sidecar.core.trust_entry import Entry
from weir_sidecar.core.trust_told import Teller, batches
from weir_sidecar.edge.metrics import Metrics
from weir_sidecar.edge.stream_link import Link, StreamEnd, StreamEndedError, connect
from weir_sidecar.wire.http_answer import LAST_CHUNK, AnswerError, AnswerReader, LineReader, chunk

DEBOUNCE = 0.1
"""Seconds in which changes of trust are gathered."""
GOOD_SECONDS = 5.0
"""A stream that lasted so long was good; one that is cut sooner, again and again, is waited for ever longer."""
_REFUSALS = (401, 403, 404)
_REFUSAL_BYTES = 2048
_TOKEN_BYTES = 65536
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, section 2.1."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""RFC 1123, as Kubernetes names things."""


class PodIdentity(msgspec.Struct, frozen=True):
    """Which pod this is, and the file with its token. Raises `ValueError` for names that Kubernetes does not give."""

    namespace: str
    name: str
    token_file: str

    def __post_init__(self) -> None:
        for name in (self.namespace, self.name):
            if _NAME.fullmatch(name) is None:
                raise ValueError(f"{name!r} is not the name of a namespace or pod")


class StreamTasks(msgspec.Struct, frozen=True):
    """What the stream asks the sidecar for, and brings it. None of these raises."""

    stream: Callable[[], Stream | None]
    """Where the control plane is, as the config in force says."""
    hello: Callable[[], Hello]
    health: Callable[[], Health]
    trust: Callable[[], Iterable[Entry]]
    """What this pod knows itself."""
    take: Callable[[SidecarConfig], Applied]
    hear: Callable[[Exceptions], None]


class _Envelope(msgspec.Struct, frozen=True):
    """A line that is told apart before it is read, so that a config that cannot be read can be answered."""

    type: str
    config: msgspec.Raw = msgspec.Raw(b"null")


class _Revision(msgspec.Struct, frozen=True):
    revision: str = ""


class StreamClient:
    """Keeps a stream open as long as the loop runs. `random` gives numbers from 0 to 1."""

    def __init__(  # noqa: PLR0913, PLR0917  (the loop, who we are, whom we serve, and the three things tests own)
        self,
        loop: asyncio.AbstractEventLoop,
        pod: PodIdentity,
        tasks: StreamTasks,
        metrics: Metrics,
        random: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._pod = pod
        self._tasks = tasks
        self._metrics = metrics
        self._random = random
        self._say = say
        self._backoff = Backoff(random)
        self._state: StreamEnd | None = StreamEnd.CLEAN
        """What was said last; None: connected."""
        self._conversation: _Conversation | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._task = loop.create_task(self._run())

    def trust_changed(self) -> None:
        """Something in the trust cache may have changed: tell it soon."""
        if self._telling is None and self._conversation is not None:
            self._telling = self._loop.call_later(DEBOUNCE, self._tell_trust)

    def health_changed(self) -> None:
        """Tell how the sidecar is now, not only when it is time to."""
        if self._conversation is not None:
            self._conversation.tell_health()

    async def close(self) -> None:
        """End the stream."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    def _tell_trust(self) -> None:
        self._telling = None
        if self._conversation is not None:
            self._conversation.tell_trust()

    async def _run(self) -> None:
        while True:
            try:
                ended = await self._attempt()
            except Exception as error:  # noqa: BLE001 - a fault of ours must neither reach flows nor end the stream for ever
                ended = StreamEndedError(StreamEnd.FAULT, f"{type(error).__name__}: {error}")
            self._metrics.stream_connected = False
            self._tell(ended.end, ended.detail)
            await asyncio.sleep(self._pause(ended.end))

    async def _attempt(self) -> StreamEndedError:
        """One connection, to its end."""
        stream = self._tasks.stream()
        if stream is None:
            return StreamEndedError(StreamEnd.MOVED, "there is none now")
        try:
            token = read_token(self._pod.token_file)
            link = await connect(self._loop, stream)
        except StreamEndedError as ended:
            return ended
        self._conversation = _Conversation(self._loop, link, self._tasks, self._random, self._say)
        began = self._loop.time()
        try:
            await self._conversation.run(_head(self._pod, stream, token), stream, self._connected)
        except StreamEndedError as ended:
            return ended
        except AnswerError as error:
            return StreamEndedError(StreamEnd.BROKEN, str(error))
        finally:
            self._conversation = None
            if self._loop.time() - began >= GOOD_SECONDS:
                self._backoff.succeeded()
            link.close(LAST_CHUNK)
        raise AssertionError("a conversation ends with an error")

    def _connected(self) -> None:
        self._metrics.stream_connected = True
        self._metrics.stream_connections += 1
        self._tell(None, "")

    def _pause(self, end: StreamEnd) -> float:
        """Seconds until the next attempt; next to none after a stream that was good for a while."""
        return self._backoff.refused() if end in (StreamEnd.REFUSED, StreamEnd.FAULT) else self._backoff.failed()

    def _tell(self, end: StreamEnd | None, detail: str) -> None:
        """Say it if it is another state than the last time; attempts that fail alike are not worth a line each."""
        if end is self._state:
            return
        self._state = end
        stream = self._tasks.stream()
        server = "" if stream is None else f" to {stream.server}"
        if end is None:
            self._say(f"the config stream{server} is open")
        else:
            self._say(f"no config stream{server}: {end}: {detail}; the last good config stays, and it is tried again")


class _Conversation:
    """What is said on one connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        tasks: StreamTasks,
        random: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._link = link
        self._tasks = tasks
        self._random = random
        self._say = say
        self._teller = Teller()
        self._answer = AnswerReader()
        self._lines = LineReader(MAX_LINE)
        self._refusal = b""

    def tell_trust(self) -> None:
        """Tell what has changed since it was last told."""
        changes = self._teller.changes(self._tasks.trust())
        for entries in batches(changes) if changes else ():
            self._post(Trust(entries))

    def tell_health(self) -> None:
        """Tell how the sidecar is."""
        self._post(self._tasks.health())

    async def run(self, head: bytes, stream: Stream, connected: Callable[[], None]) -> None:
        """Talk until the end, which is an error: `StreamEndedError` or `AnswerError`."""
        self._link.post(head)
        self._post(self._tasks.hello())
        for entries in batches(self._teller.everything(self._tasks.trust())):
            self._post(Trust(entries))
        told_at = heard_at = self._loop.time()
        interval = self._health_interval()
        is_open = False
        while True:
            due = min(heard_at + SILENCE_SECONDS, told_at + interval)
            data = await self._link.turn(due - self._loop.time())
            now = self._loop.time()
            if data:
                heard_at = now
                self._read(data)
            elif now >= heard_at + SILENCE_SECONDS:
                raise StreamEndedError(StreamEnd.BROKEN, f"the server was silent for {SILENCE_SECONDS:.0f} s")
            if not is_open and self._answer.head is not None and self._answer.head.status == 200:
                is_open = True
                connected()
            if now >= told_at + interval:
                self.tell_health()
                told_at, interval = now, self._health_interval()
            if self._answer.ended:
                raise StreamEndedError(StreamEnd.CLEAN, "as it does when it is replaced")
            if self._tasks.stream() != stream:
                raise StreamEndedError(StreamEnd.MOVED, "it goes on there")

    def _health_interval(self) -> float:
        # Not all pods at once, and never later than promised.
        return HEALTH_SECONDS * (0.7 + 0.25 * self._random())

    def _post(self, message: Up) -> None:
        self._link.post(chunk(msgspec.json.encode(message) + b"\n"))

    def _read(self, data: bytes) -> None:
        body = self._answer.feed(data)
        head = self._answer.head
        if head is None:
            return
        if head.status != 200:
            self._refuse(head.status, body)
            return
        for line in self._lines.feed(body):
            if line.strip():
                self._hear(line)

    def _refuse(self, status: int, body: bytes) -> None:
        """Wait for the words that go with a refusal, as long as they are few."""
        self._refusal += body
        if not self._answer.ended and len(self._refusal) < _REFUSAL_BYTES:
            return
        end = StreamEnd.REFUSED if status in _REFUSALS else StreamEnd.UNAVAILABLE
        words = self._refusal[:_REFUSAL_BYTES].decode("utf-8", "replace")
        raise StreamEndedError(end, f"{status} {''.join(c if c.isprintable() else ' ' for c in words)}".strip())

    def _hear(self, line: bytes) -> None:
        try:
            envelope = msgspec.json.decode(line, type=_Envelope)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise StreamEndedError(StreamEnd.BROKEN, f"a message is not understood: {error}") from error
        match envelope.type:
            case "config":
                self._post(self._take(bytes(envelope.config)))
            case "exceptions":
                self._hear_exceptions(line)
            case other:
                self._say(f"the config stream brought a message of type {other!r}, which this version does not know")

    def _take(self, data: bytes) -> Applied:
        try:
            config = contract.decode(data)
        except (ConfigError, RecursionError) as error:
            return Applied(_revision_of(data), problem=str(error))
        return self._tasks.take(config)

    def _hear_exceptions(self, line: bytes) -> None:
        try:
            exceptions = msgspec.json.decode(line, type=Exceptions)
        except (msgspec.MsgspecError, UnicodeError) as error:
            self._say(f"the config stream brought trust exceptions that cannot be read; the last ones stay: {error}")
            return
        self._tasks.hear(exceptions)


def _revision_of(data: bytes) -> str:
    """Which config it was that could not be read."""
    try:
        return msgspec.json.decode(data, type=_Revision).revision
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""


def _head(pod: PodIdentity, stream: Stream, token: bytes) -> bytes:
    head = (
        f"POST /v1/namespaces/{pod.namespace}/pods/{pod.name}/stream HTTP/1.1\r\nHost: {stream.server}\r\n"
        "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer "
    )
    return head.encode() + token + b"\r\n\r\n"


def read_token(path: str) -> bytes:
    """The token, which the kubelet renews in its file. Raises `StreamEndedError`."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib stays out of the sidecar
            token = file.read(_TOKEN_BYTES).strip()
    except OSError as error:
        raise StreamEndedError(StreamEnd.NO_TOKEN, f"{path}: {error.strerror}") from error
    if _TOKEN.fullmatch(token) is None:
        raise StreamEndedError(StreamEnd.NO_TOKEN, f"{path} does not hold one")
    return token
