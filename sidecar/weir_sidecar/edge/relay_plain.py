"""The relay of HTTP in the clear: read as decrypted bytes are, but that long bodies are spliced in the kernel."""

import asyncio

from weir_sidecar.edge.plain_session import PlainSession
from weir_sidecar.edge.relay import Side
from weir_sidecar.edge.relay_tls import TLSWay, Unread
from weir_sidecar.edge.splice import PIPE_BYTES, Pipe
from weir_sidecar.edge.tls_session import End, SessionEndedError

_SPLICE_FROM = 262144
"""Bytes to come of a body: for fewer, two more system calls and two descriptors cost more than the copy."""


class PlainWay(TLSWay):
    """One direction of bytes in the clear. Bounded by one read, or by one pipe."""

    __slots__ = ("_pipe", "_splices")

    reads_in_turn = 1  # which may say that the bytes to come need no reading

    def __init__(
        self, loop: asyncio.AbstractEventLoop, source: PlainSession, sink: PlainSession, source_side: Side
    ) -> None:
        super().__init__(loop, source, sink, source_side)
        self._pipe: Pipe | None = None
        self._splices = True

    def stop(self) -> None:
        """Leave the event loop and give the pipe back."""
        super().stop()
        self._splices = False
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _move(self) -> None:
        body = self.unread
        if body is None or body.left < _SPLICE_FROM or not self._has_pipe():
            super()._move()
        else:
            self._splice(body)

    def _has_pipe(self) -> bool:
        if self._pipe is None and self._splices:
            try:
                self._pipe = Pipe()
            except OSError:
                self._splices = False  # no descriptor to spare: copying goes on, and is right, only dearer
        return self._splices

    def _splice(self, body: Unread) -> None:
        assert self._pipe is not None
        try:
            moved = self._pipe.fill(self._source_fd, min(PIPE_BYTES, body.left - 1))
        except BlockingIOError:
            # Readable, and nothing to splice: the kernel stops at urgent data (tcp(7)), and only recv gets past it.
            super()._move()
            return
        except OSError:
            self._source_ended(SessionEndedError(End.RESET))
            return
        if not moved:
            self._source_ended(SessionEndedError(End.FIN))
            return
        body.left -= moved
        if not self._flush():
            self._held = b""  # it comes behind what is in the pipe
            self._loop.remove_reader(self._source_fd)
            self._loop.add_writer(self._sink_fd, self._drain)

    def _flush(self) -> bool:
        """Move what is in the pipe to the sink; False while some of it is left."""
        assert self._pipe is not None
        try:
            self.total += self._pipe.flush(self._sink_fd)
        except OSError:
            self._relay.failed(self.source_side.other, End.RESET)
            return True
        return not self._pipe.held

    def _drain(self) -> None:
        if self._pipe is None or self._flush():
            super()._drain()
