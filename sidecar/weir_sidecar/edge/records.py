"""Where records go, of flows and of requests: metrics, the last ones' ring, those who follow, the file of --record.

Called once a flow and once a request, on the loop that serves traffic, so it only encodes and remembers; what was
gathered in one turn of the loop, or for a moment where it is requests alone, is delivered together. A file holds whole
lines only, and a record that cannot be delivered is counted: nothing waits for a full disk.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from itertools import islice

from weir_sidecar.contract.capture import CaptureRecord, encode_capture
from weir_sidecar.contract.flow import FlowRecord, encode_record
from weir_sidecar.contract.request import encode_request
from weir_sidecar.edge.context import ToldRequest
from weir_sidecar.edge.metrics import Metrics, RecordSinkKind

RING = 1000
"""How many records the ring remembers."""
RING_BYTES = 8 << 20
"""What they may take, where some are long."""
FILE_BACKLOG = 4 << 20
"""Bytes that may wait for a file that takes no more at the moment (a pipe that is read slowly)."""
_GATHER = 0.02
"""Seconds for which the records of requests are gathered: each delivery is a system call, which costs as much as a request."""
_MOST_TOLD = 1024
_LONG = 4096
"""Bytes of a line from which on what has gathered is looked after: so many shorter ones are no burden."""
_MOST_FRESH = 1 << 20
_RETRY = 0.05
_BATCH = 256

type Follower = Callable[[list[bytes]], int]
"""Is called with the lines of one turn of the loop, does not block, and says how many it could not take."""


def open_record_file(path: str) -> int:
    """Open a record file to append to it, made if it is not there. A pipe is fine if somebody reads it; OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(path, flags, 0o644)


def open_stdout() -> int:
    """Standard output as a record file, which does not block. To be called before privileges are dropped; OSError.

    O_NONBLOCK belongs to an open file, and standard error may be the same one: so a pipe or file is opened anew. What
    cannot be (a socket) is taken as it is.
    """
    try:
        return os.open("/proc/self/fd/1", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        copy = os.dup(1)
        os.set_blocking(copy, False)
        return copy


class RecordSink:
    """Takes records: it is called with each flow's, and `request` with each request's. Owns the descriptor `file`, if there is one.

    `warn` is told in one sentence when records begin to be lost, and again only after some were written in between.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        warn: Callable[[str], None],
        file: int | None = None,
    ) -> None:
        self._loop = loop
        self._metrics = metrics
        self._ring: deque[bytes] = deque(maxlen=RING)
        self._told: list[ToldRequest] = []
        self._fresh: list[bytes] = []
        self._followers: list[Follower] = []
        self._file = None if file is None else _LineFile(file, metrics, warn)
        self._gathering: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None

    def __call__(self, record: FlowRecord) -> None:
        """Take the record of a flow that has ended."""
        self._settle()
        self._metrics.count(record)
        self._tell(encode_record(record))

    def capture(self, record: CaptureRecord) -> None:
        """Take what is to be told of the pod's capture."""
        self._settle()
        self._tell(encode_capture(record))

    def request(self, told: ToldRequest) -> None:
        """Take an HTTP request that has ended."""
        if not self._told and not self._fresh:
            self._gathering = self._loop.call_later(_GATHER, self._deliver)
        self._told.append(told)
        if len(self._told) >= _MOST_TOLD or told.is_large:
            self._settle()

    def _settle(self) -> None:
        """Make the lines of the requests that were taken: many at once cost half of what each alone would."""
        told, self._told = self._told, []
        for one in told:
            record = one.record()
            self._metrics.count_request(record)
            if one.keeps(record):
                self._take(encode_request(record))

    def _tell(self, line: bytes) -> None:
        if not self._fresh or self._gathering is not None:
            self._stop_gathering()
            self._loop.call_soon(self._deliver)
        self._take(line)

    def _take(self, line: bytes) -> None:
        self._ring.append(line)
        self._fresh.append(line)
        if len(line) > _LONG:
            self._make_room()

    def _make_room(self) -> None:
        """Forget the oldest of too many bytes; deliver early what would gather to too many."""
        size = sum(map(len, self._ring))
        while size > RING_BYTES:
            size -= len(self._ring.popleft())
        if sum(map(len, self._fresh)) > _MOST_FRESH:
            self._hand_out()

    def _stop_gathering(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    def last(self, count: int = RING) -> list[bytes]:
        """The last records, oldest first, each a line with its newline."""
        self._settle()
        return list(self._ring)[-count:] if count > 0 else []

    def follow(self, follower: Follower) -> Callable[[], None]:
        """Deliver records to `follower` too, from the next one taken on; call what is returned to end that."""
        self._deliver()  # those taken before are not the new follower's
        self._followers.append(follower)
        return lambda: self._followers.remove(follower)

    def close(self) -> None:
        """Deliver what is left and close the file; records taken later only reach the ring and the metrics."""
        self._deliver()
        self._followers.clear()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def _deliver(self) -> None:
        self._stop_gathering()
        self._settle()
        self._hand_out()

    def _hand_out(self) -> None:
        lines, self._fresh = self._fresh, []
        if not lines:
            return  # a new follower had them delivered before their turn
        for follower in self._followers:
            self._metrics.records_lost[RecordSinkKind.FOLLOWER] += follower(lines)
        if self._file is not None:
            self._file.add(lines)
            self._write()

    def _write(self) -> None:
        if self._file is not None and self._file.write() and self._retry is None:
            self._retry = self._loop.call_later(_RETRY, self._write_again)

    def _write_again(self) -> None:
        self._retry = None
        self._write()


class _LineFile:
    """An append-only file of lines. `add`, then `write`; neither blocks on a pipe nor raises."""

    def __init__(self, descriptor: int, metrics: Metrics, warn: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._metrics = metrics
        self._warn = warn
        self._lines: deque[bytes] = deque()
        self._size = 0
        # The rest of a line whose beginning is in the file. It goes first, however long that takes, so that the
        # lines after it are whole.
        self._torn = b""
        self._failing = False

    def add(self, lines: list[bytes]) -> None:
        for line in lines:
            if self._size + len(line) > FILE_BACKLOG:
                self._lose(1, "the reader does not keep up")
            else:
                self._lines.append(line)
                self._size += len(line)

    def write(self) -> bool:
        """Write what can be written. True: some had to wait, try again later."""
        while self._torn or self._lines:
            batch = self._torn + b"".join(islice(self._lines, _BATCH))
            try:
                written = os.write(self._descriptor, batch)
            except BlockingIOError:
                return True
            except OSError as error:
                self._lose(len(self._lines), error.strerror or str(error))
                self._lines.clear()
                self._size = 0
                return False
            self._failing = False
            self._advance(written)
        return False

    def close(self) -> None:
        self.write()
        self._lose(len(self._lines) + bool(self._torn), "the sidecar ends before it could be written")
        os.close(self._descriptor)

    def _advance(self, written: int) -> None:
        """Forget the first `written` bytes of the torn line and the lines after it."""
        if written == len(self._torn) + self._size:  # all, as nearly always
            self._torn = b""
            self._lines.clear()
            self._size = 0
            return
        if written < len(self._torn):
            self._torn = self._torn[written:]
            return
        written -= len(self._torn)
        self._torn = b""
        while written:
            line = self._lines.popleft()
            self._size -= len(line)
            self._torn = line[written:]
            written -= min(written, len(line))

    def _lose(self, count: int, why: str) -> None:
        self._metrics.records_lost[RecordSinkKind.FILE] += count
        if count and not self._failing:
            self._failing = True
            self._warn(f"flow records are being lost: the record file takes no more: {why}")
