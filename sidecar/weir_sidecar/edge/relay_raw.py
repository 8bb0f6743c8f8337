"""The unread relay: bytes as they come. Small ones are copied; a stream that grows is spliced in the kernel."""

import asyncio
import os
from socket import SHUT_WR, socket

from weir_sidecar.edge.relay import Relay, Side
from weir_sidecar.edge.tls_session import End

_CHUNK = 65536
_SPLICE_AFTER = 4 * _CHUNK
"""Bytes after which a way gets a pipe: below, two more system calls and two descriptors cost more than the copy."""

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class RawWay:
    """One direction of unread bytes between two non-blocking sockets. Bounded by one chunk, or by one pipe."""

    __slots__ = (
        "_held",
        "_in_pipe",
        "_loop",
        "_pipe",
        "_relay",
        "_sink",
        "_source",
        "_splices",
        "source_side",
        "total",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, source: socket, sink: socket, source_side: Side) -> None:
        self._loop = loop
        self._source = source
        self._sink = sink
        self.source_side = source_side
        self.total = 0
        self._held: memoryview | None = None
        self._pipe: tuple[int, int] | None = None
        self._in_pipe = 0
        self._splices = True
        self._relay: Relay

    def start(self, relay: Relay) -> None:
        """Begin to read from the source, which may hold bytes already."""
        self._relay = relay
        self._loop.add_reader(self._source.fileno(), self._copy)
        if self.source_side is Side.CLIENT:
            self._copy()  # what was peeked at need not wait for another turn of the loop

    def stop(self) -> None:
        """Leave the event loop and give the pipe back."""
        self._loop.remove_reader(self._source.fileno())
        self._loop.remove_writer(self._sink.fileno())
        self._splices = False
        if self._pipe is not None:
            os.close(self._pipe[0])
            os.close(self._pipe[1])
            self._pipe = None

    def _copy(self) -> None:
        try:
            data = self._source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._relay.failed(self.source_side, End.RESET)
            return
        if not data:
            self._source_ended()
            return
        self._send(memoryview(data))
        if self.total >= _SPLICE_AFTER and self._splices and self._held is None and self._pipe is None:
            self._open_pipe()

    def _send(self, data: memoryview) -> None:
        try:
            sent = self._sink.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._relay.failed(self.source_side.other, End.RESET)
            return
        self.total += sent
        if sent < len(data):
            if self._held is None:
                self._loop.remove_reader(self._source.fileno())
                self._loop.add_writer(self._sink.fileno(), self._drain)
            self._held = data[sent:]
        elif self._held is not None:
            self._held = None
            self._loop.remove_writer(self._sink.fileno())
            self._loop.add_reader(self._source.fileno(), self._copy if self._pipe is None else self._splice)

    def _drain(self) -> None:
        assert self._held is not None
        self._send(self._held)

    def _open_pipe(self) -> None:
        try:
            self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._splices = False  # no descriptor to spare: copying goes on, and is right, only dearer
            return
        _widen(self._pipe[1])
        self._loop.add_reader(self._source.fileno(), self._splice)

    def _splice(self) -> None:
        assert self._pipe is not None
        try:
            moved = os.splice(self._source.fileno(), self._pipe[1], _PIPE_BYTES, flags=_FLAGS)
        except BlockingIOError:
            # Readable, and nothing to splice: the kernel stops at urgent data (tcp(7)), and only recv gets past it.
            self._copy()
            return
        except OSError:
            self._relay.failed(self.source_side, End.RESET)
            return
        if moved == 0:
            self._source_ended()
            return
        self._in_pipe += moved
        if not self._flush():
            self._loop.remove_reader(self._source.fileno())
            self._loop.add_writer(self._sink.fileno(), self._unclog)

    def _flush(self) -> bool:
        """Move what is in the pipe to the sink; False while some of it is left."""
        assert self._pipe is not None
        try:
            while self._in_pipe:
                moved = os.splice(self._pipe[0], self._sink.fileno(), self._in_pipe, flags=_FLAGS)
                self._in_pipe -= moved
                self.total += moved
        except BlockingIOError:
            return False
        except OSError:
            self._relay.failed(self.source_side.other, End.RESET)
        return True

    def _unclog(self) -> None:
        if self._flush() and self._pipe is not None:
            self._loop.remove_writer(self._sink.fileno())
            self._loop.add_reader(self._source.fileno(), self._splice)

    def _source_ended(self) -> None:
        self._loop.remove_reader(self._source.fileno())
        try:
            self._sink.shutdown(SHUT_WR)
        except OSError:
            self._relay.failed(self.source_side.other, End.RESET)
            return
        self._relay.source_ended(self, End.FIN)


def _widen(pipe: int) -> None:
    import fcntl  # noqa: PLC0415  (only a pod that moves bulk pays for it)

    try:
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        return  # the user's pipe budget is spent (pipe(7)); the default size works too
