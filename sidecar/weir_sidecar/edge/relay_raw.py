"""The unread relay: bytes as they come. Small ones are copied; a stream that grows is spliced in the kernel."""

import asyncio
from socket import SHUT_WR, socket

from weir_sidecar.edge.relay import Relay, Side
from weir_sidecar.edge.splice import Pipe
from weir_sidecar.edge.tls_session import End

_CHUNK = 65536
_SPLICE_AFTER = 4 * _CHUNK
"""Bytes after which a way gets a pipe: below, two more system calls and two descriptors cost more than the copy."""


class RawWay:
    """One direction of unread bytes between two non-blocking sockets. Bounded by one chunk, or by one pipe."""

    __slots__ = (
        "_held",
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
        self._pipe: Pipe | None = None
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
            self._pipe.close()
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
            self._pipe = Pipe()
        except OSError:
            self._splices = False  # no descriptor to spare: copying goes on, and is right, only dearer
            return
        self._loop.add_reader(self._source.fileno(), self._splice)

    def _splice(self) -> None:
        assert self._pipe is not None
        try:
            moved = self._pipe.fill(self._source.fileno())
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
        if not self._flush():
            self._loop.remove_reader(self._source.fileno())
            self._loop.add_writer(self._sink.fileno(), self._unclog)

    def _flush(self) -> bool:
        """Move what is in the pipe to the sink; False while some of it is left."""
        assert self._pipe is not None
        try:
            self.total += self._pipe.flush(self._sink.fileno())
        except OSError:
            self._relay.failed(self.source_side.other, End.RESET)
            return True
        return not self._pipe.held

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
