"""A non-blocking stream socket that carries messages with a two-byte length before each (RFC 1035 section 4.2.2)."""

import asyncio
import socket
import struct
from collections.abc import Callable

CHUNK = 65536
FULL = 262144
"""Unsent bytes from which on the other side should not be read."""

_ABORT = struct.pack("ii", 1, 0)


class FramedSocket:
    """Messages in by callback, messages out by `send`; at most a message and a chunk are buffered inwards.

    `ended` gets 0 when the peer has closed its half, else the errno that broke the connection; after that nothing is
    read. `drained` is told when nothing is left to send.
    """

    __slots__ = (
        "_broken", "_connecting", "_drained", "_ended", "_in", "_loop", "_out", "_parsing", "_paused", "_received", "_sock",
        "_stopped", "closed",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - a socket and its three callbacks
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        received: Callable[[bytes], None],
        ended: Callable[[int], None],
        drained: Callable[[], None],
        *,
        connecting: bool = False,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._received = received
        self._ended = ended
        self._drained = drained
        self._in = bytearray()
        self._out = bytearray()
        self._connecting = connecting
        self._broken = self._parsing = self._paused = self._stopped = self.closed = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if connecting:
            loop.add_writer(sock.fileno(), self._writable)
        else:
            loop.add_reader(sock.fileno(), self._readable)

    @property
    def full(self) -> bool:
        """Whether so much is unsent that no more should be made."""
        return len(self._out) > FULL

    @property
    def unsent(self) -> bool:
        """Whether anything is unsent."""
        return bool(self._out)

    @property
    def partial(self) -> bytes:
        """What has come of a message that is not whole, with its length."""
        return bytes(self._in)

    def send(self, message: bytes) -> None:
        """Send one message, now or when there is room."""
        if self.closed:
            return
        frame = len(message).to_bytes(2) + message
        if self._connecting or self._out:
            self._out += frame
            return
        sent = self._send(frame)
        if sent < len(frame) and not self._broken:
            self._out += frame[sent:]
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def pause(self, paused: bool) -> None:  # noqa: FBT001 - a switch is what it is
        """Stop reading, or go on."""
        if paused == self._paused or self._stopped or self.closed:
            return
        self._paused = paused
        if self._connecting:
            return
        if paused:
            self._loop.remove_reader(self._sock.fileno())
        else:
            self._loop.add_reader(self._sock.fileno(), self._readable)
            self._parse()

    def close(self) -> None:
        """Close the connection."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()

    def abort(self) -> None:
        """Close the connection with a reset."""
        if not self.closed:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self.close()

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._broken = True
            self._stop(error.errno or 0)
            return 0

    def _stop(self, error: int) -> None:
        if not (self._stopped or self.closed):
            self._stopped = True
            self._loop.remove_reader(self._sock.fileno())
            self._ended(error)

    def _readable(self) -> None:
        try:
            chunk = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._stop(error.errno or 0)
            return
        if not chunk:
            self._stop(0)
            return
        self._in += chunk
        self._parse()

    def _parse(self) -> None:
        if self._parsing:
            return
        self._parsing = True
        start = 0
        while not (self._paused or self.closed) and len(self._in) >= start + 2:
            end = start + 2 + int.from_bytes(self._in[start : start + 2])
            if len(self._in) < end:
                break
            message = bytes(self._in[start + 2 : end])
            start = end
            self._received(message)
        del self._in[:start]
        self._parsing = False

    def _writable(self) -> None:
        if self._connecting:
            error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._loop.remove_writer(self._sock.fileno())
                self._stop(error)
                return
            self._connecting = False
            if not self._paused:
                self._loop.add_reader(self._sock.fileno(), self._readable)
        del self._out[: self._send(self._out)]
        if self._broken:
            self._out.clear()
        if not (self._out or self.closed):
            self._loop.remove_writer(self._sock.fileno())
            self._drained()
