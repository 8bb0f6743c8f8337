"""The decrypted relay: application bytes from one session to the other, a few records at a time.

Unread; or read by whoever sets a way's `on_bytes`, which says for each portion what is passed on in its place. A body
whose length is known need not be read to its end: see `TLSWay.unread`.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from OpenSSL import SSL

from weir_sidecar.edge.plain_session import PlainSession
from weir_sidecar.edge.relay import Relay, Side
from weir_sidecar.edge.tls_session import READ_BYTES, RECORD_BYTES, End, Session, SessionEndedError

_AGAIN = 0.02
"""Seconds until a record that waits for the other direction is tried again."""


class Unread(Protocol):
    """What passes without being read."""

    left: int
    """Bytes to come; a way takes off what it has passed on."""


class TLSWay:
    """One direction of decrypted bytes. `on_first` is called once, before the first byte is passed on."""

    __slots__ = (
        "_again", "_ended", "_finishing", "_held", "_loop", "_on_first", "_paused", "_recv", "_relay", "_send", "_sink", "_sink_fd",
        "_source", "_source_fd", "_stopped", "gathers", "on_bytes", "on_end", "source_side", "total", "unread",
    )  # fmt: skip

    reads_in_turn = 4
    """Before other flows get theirs."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: Session | PlainSession,
        sink: Session | PlainSession,
        source_side: Side,
        on_first: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._source = source
        self._sink = sink
        self._recv = source.recv
        self._send = sink.send
        self._source_fd = source.sock.fileno()
        self._sink_fd = sink.sock.fileno()
        self.source_side = source_side
        self.total = 0
        self._on_first = on_first
        self._held: bytes | None = None
        self._again: asyncio.TimerHandle | None = None
        self._paused = self._finishing = self._stopped = False
        self._ended: SessionEndedError | None = None
        self.gathers = False
        """Whether all that comes in one turn is passed on together."""
        self.on_bytes: Callable[[bytes], bytes] | None = None
        """Gets what came and returns what to pass on now."""
        self.unread: Unread | None = None
        """What `on_bytes` need not be told of. It gets the last of it, so that it hears of the end."""
        self.on_end: Callable[[], bytes] | None = None
        """Is told that the source has ended, and returns what is still to be passed on."""
        self._relay: Relay

    def start(self, relay: Relay) -> None:
        """Begin to read; OpenSSL may hold a record already, of which the socket will not tell."""
        self._relay = relay
        self._read_on()
        if self._source.pending():
            (self._move_many if self.gathers else self._move)()

    def stop(self) -> None:
        """Leave the event loop."""
        self._paused = self._stopped = True
        self._loop.remove_reader(self._source_fd)
        self._loop.remove_writer(self._sink_fd)
        if self._again is not None:
            self._again.cancel()

    def pause(self) -> None:
        """Read no more, until `go_on`."""
        self._paused = True
        self._loop.remove_reader(self._source_fd)

    def go_on(self) -> None:
        """Read again."""
        if self._stopped:
            return
        self._paused = False
        if self._held is None:
            self._read_again()

    @property
    def backlog(self) -> int:
        """Bytes that the sink has not taken yet."""
        return 0 if self._held is None else len(self._held)

    def inject(self, data: bytes) -> None:
        """Send bytes of our own, after those that came before."""
        if self._held is not None:
            self._held += data
        elif not self._stopped:
            self._pass_on(data)

    def abort(self) -> None:
        """End the relay from our side: both ends are told with a reset."""
        self._relay.abort(End.OURS)

    def finish(self) -> None:
        """Pass on what is held, end the sink's stream, and read no more."""
        self.pause()
        self._finishing = True
        if self._held is None and not self._stopped:
            self._notify()

    def finish_after_this(self) -> None:
        """`finish`, when what `on_bytes` returns has been passed on."""
        self._paused = self._finishing = True

    def _move(self) -> None:
        for _ in range(self.reads_in_turn):
            try:
                data = self._recv()
            except SSL.WantReadError:
                return
            except SSL.WantWriteError:
                self._try_again(self._read_on)
                return
            except SSL.Error as error:
                self._source_ended(self._source.ended(error))
                return
            if self._on_first is not None:
                self._on_first()
                self._on_first = None
            size = len(data)
            if self.unread is not None and size < self.unread.left:
                self.unread.left -= size
            elif self.on_bytes is not None:
                data = self._read_by(self.on_bytes, data)
            passed = self._pass_on(data)
            if self._paused:
                self._rest(passed=passed)
                return
            # What is less is most often all for now: asking the socket again would only cost an exception.
            if not passed or (size < READ_BYTES and not self._source.pending()):
                return

    def _move_many(self) -> None:
        """As `_move`, for frames that come in many small records or do not end with them: one send for many of them."""
        for _ in range(self.reads_in_turn):
            if not self._gather():
                return

    def _gather(self) -> bool:
        """Move once; whether there may be more."""
        on_bytes = self.on_bytes
        assert on_bytes is not None
        out: list[bytes] = []
        size = came = 0
        while size < READ_BYTES and came < RECORD_BYTES and not self._paused and self._ended is None:
            try:
                data = self._recv()
            except SSL.WantReadError:
                break
            except SSL.WantWriteError:
                self._try_again(self._read_on)
                break
            except SSL.Error as error:
                self._ended = self._source.ended(error)
                break
            if self._on_first is not None:
                self._on_first()
                self._on_first = None
            came = len(data)
            size += came
            out.append(self._read_by(on_bytes, data))
        if not self._pass_on(b"".join(out)):
            return False
        if self._ended is not None:
            self._source_ended(self._ended)
        elif self._paused:
            self._rest(passed=True)
        else:
            return size >= READ_BYTES or self._source.pending() > 0
        return False

    def _rest(self, *, passed: bool) -> None:
        """Stop reading, for a while or for good."""
        self._loop.remove_reader(self._source_fd)
        if passed and self._finishing and not self._stopped:
            self._notify()

    def _read_by(self, on_bytes: Callable[[bytes], bytes], data: bytes) -> bytes:
        """What a reader passes on. One that fails, whatever it was, ends its flow, which would hang; the others go on."""
        try:
            return on_bytes(data)
        except Exception as error:  # noqa: BLE001 - a fault of ours: told with its trace
            self._loop.call_exception_handler({"message": "what reads a flow failed; it is reset", "exception": error})
            self._relay.abort(End.OURS)
            return b""

    def _pass_on(self, data: bytes) -> bool:
        """Send `data`; False where some of it is held back, or the sink is gone."""
        left = data if len(data) <= RECORD_BYTES else memoryview(data)  # whose slices are no copies
        try:
            while (
                left
            ):  # more than once where there is more than a record, or the peer wants small ones (RFC 6066, section 4)
                sent = self._send(left)
                self.total += sent
                left = left[sent:]
        except SSL.WantWriteError:
            self._held = bytes(left)
            self._loop.remove_reader(self._source_fd)
            self._loop.add_writer(self._sink_fd, self._drain)
            return False
        except SSL.WantReadError:
            self._held = bytes(left)
            self._loop.remove_writer(self._sink_fd)
            self._try_again(self._drain)
            return False
        except SSL.Error as error:
            self._relay.failed(self.source_side.other, self._sink.ended(error).end)
            return False
        return True

    def _drain(self) -> None:
        assert self._held is not None
        if self._pass_on(self._held):
            self._held = None
            self._loop.remove_writer(self._sink_fd)
            if self._ended is not None:
                self._source_ended(self._ended)
            elif self._finishing:
                self._notify()
            else:
                self._read_again()

    def _read_on(self) -> None:
        if not self._paused:
            self._loop.add_reader(self._source_fd, self._move_many if self.gathers else self._move)

    def _read_again(self) -> None:
        """Read on, also what the socket will not tell of."""
        self._read_on()
        if not self._paused and self._source.pending():
            self._again = self._loop.call_later(0, self._move_many if self.gathers else self._move)

    def _try_again(self, step: Callable[[], None]) -> None:
        """Do `step` a little later: a message of TLS's own is half-way, in the direction that the other way moves."""
        self._loop.remove_reader(self._source_fd)
        self._again = self._loop.call_later(_AGAIN, step)

    def _source_ended(self, ended: SessionEndedError) -> None:
        self._loop.remove_reader(self._source_fd)
        if self.on_end is not None and ended.end in (End.CLOSE_NOTIFY, End.FIN):
            rest = self.on_end()
            if rest and not self._pass_on(rest):
                self._paused = self._finishing = True
                return
        match ended.end:
            case End.CLOSE_NOTIFY:
                self._notify()
            case End.FIN:
                self._sink.half_close()  # a stream cut short must look cut short on the other side too
                self._relay.source_ended(self, End.FIN)
            case _:
                self._relay.failed(self.source_side, ended.end)

    def _notify(self) -> None:
        if not self._sink.notify():
            self._loop.add_writer(self._sink_fd, self._notify)
            return
        self._loop.remove_writer(self._sink_fd)
        self._sink.half_close()
        self._relay.source_ended(self, End.CLOSE_NOTIFY)
