"""One direction of a relayed HTTP/2 connection: what comes in as frames goes out as the same bytes, but where told otherwise.

Header blocks are read with the sender's HPACK table. They are passed on as they came until one is changed, or is kept
back that changes that table: from then on all blocks of this direction are written anew, without a table.
"""

from collections import deque
from collections.abc import Callable

from weir_sidecar.core.http2_message import edited
from weir_sidecar.core.http_policy import Edits
from weir_sidecar.wire import http2
from weir_sidecar.wire.hpack import DEFAULT_TABLE_SIZE, MAX_TABLE_SIZE, Block, Decoder, Field, encode
from weir_sidecar.wire.http2 import ErrorCode, HeaderBlock, Piece, Setting
from weir_sidecar.wire.http2_walk import FrameWalk

type Handler = Callable[[Piece], bytes | None]
"""Is told of a piece; returns what goes on in its place, or None: itself."""

_MAX_UNACKNOWLEDGED = 64
_MAX_REWRITTEN = 1 << 20
_NO_TABLE = (0,)
"""What blocks that are written anew begin with: a table of no size is allowed whatever the receiver announces, so that
they may change places with its SETTINGS and with each other (RFC 7541, section 4.2)."""

STALL = b"\0stall"
"""What a handler returns (this object) to be asked again about this piece later, and about none before."""


class Lane:
    """Frames of one direction. `feed` them; `take` what goes on; `insert` frames of our own between them."""

    __slots__ = (
        "_acknowledged", "_handlers", "_index", "_inserts", "_least", "_out", "_pieces", "_rewritten", "_sent_sizes", "_started", "_walk",
        "_within", "decoder", "rewrites", "stalled",
    )  # fmt: skip

    def __init__(self, handlers: dict[int, Handler], *, client: bool) -> None:
        """`client`: from the client to the upstream. `handlers` by type of frame; what has none goes on."""
        self.decoder = Decoder()
        self.rewrites = False
        self.stalled = False
        """Whether the rest of what was fed waits; `go_on` when it need not any more. Nothing may be fed before."""
        self._handlers = handlers
        self._walk = FrameWalk(client=client)
        self._pieces: list[Piece] = []
        self._index = 0
        self._out: list[bytes | memoryview] = []
        self._inserts: list[bytes] = []
        self._rewritten = 0
        """Bytes of blocks that were written anew out of what was fed last."""
        self._started = False
        self._within = False
        """Whether what went on so far ends in the middle of a frame."""
        # The receiver's SETTINGS_HEADER_TABLE_SIZE: as it was sent, and as this direction's sender acknowledged it.
        self._sent_sizes: deque[int | None] = deque()
        self._acknowledged = DEFAULT_TABLE_SIZE
        self._least = MAX_TABLE_SIZE
        """The smallest of them that the sender has not followed yet."""

    @property
    def buffer(self) -> bytes:
        """What the pieces are parts of."""
        return self._walk.buffer

    @property
    def open_stream(self) -> int:
        """The stream of the frame of which more is to come; 0: there is none."""
        return self._walk.open_stream

    @property
    def backlog(self) -> int:
        """Bytes of our own that wait for a place."""
        return sum(map(len, self._inserts)) if self._inserts else 0

    def feed(self, data: bytes, *, joins: bool = True) -> None:
        """Take bytes in. Raises `FrameError` after what came before the error went on.

        `joins`: handlers of DATA may be asked about several frames of a stream at a time.
        """
        self._rewritten = 0
        self._walk.joins = joins and not self._inserts  # which go between frames
        self._pieces = self._walk.feed(data)
        self._index = 0
        self.go_on()

    def go_on(self) -> None:
        """Pass on what was fed. Raises `FrameError`, after what came before the error went on."""
        self.stalled = False
        pieces = self._pieces
        # From `start` on nothing is in `_out` yet; what handlers leave alone gathers into one run.
        start = end = pieces[self._index].start if self._index < len(pieces) else 0
        try:
            while self._index < len(pieces):
                piece = pieces[self._index]
                handler = self._handlers.get(piece.type)
                instead = None if handler is None else handler(piece)
                if instead is STALL:
                    self.stalled = True
                    return
                if self._inserts and piece.first and self._started:
                    self._put_run(start, piece.start)
                    start = piece.start
                    self._put_inserts()
                if instead is not None:
                    self._put_run(start, piece.start)
                    start = piece.end
                    if instead:
                        self._out.append(instead)
                end = piece.end
                self._index += 1
                self._within = instead is None and not piece.last
                self._started = self._started or piece.type >= 0
        finally:
            self._put_run(start, end)
        if self._walk.error is not None:
            raise self._walk.error

    def insert(self, frames: bytes) -> None:
        """Put frames of our own in, as soon as another frame may begin here; never before the sender's first."""
        self._inserts.append(frames)

    def finish(self, frames: bytes) -> None:
        """Say a last word; nothing that is fed goes on after it. In the middle of a frame it would be no word at all."""
        if not self._within:
            self._out += self._inserts if self._started else [http2.settings_frame(())]
            self._out.append(frames)
        self._inserts.clear()
        self._pieces.clear()

    def close(self) -> None:
        """Nothing more is fed: let go of the handlers, whose owner owns this."""
        self._handlers.clear()

    def take(self) -> bytes:
        """What goes on, once."""
        out = self._out
        if self._inserts:
            if self._started and not self._within:
                self._put_inserts()
        elif not out:
            return b""
        taken = b"".join(out) if len(out) != 1 else out[0] if isinstance(out[0], bytes) else bytes(out[0])
        out.clear()
        return taken

    def read_block(self, piece: Piece) -> tuple[HeaderBlock, Block]:
        """The header block of a piece, and what it says. Raises `FrameError`, `HPACKError`."""
        framed = http2.header_block(self._walk.buffer, piece)
        block = self.decoder.decode(framed.fragment)
        if block.table_sizes:
            self._least = MAX_TABLE_SIZE
        return framed, block

    def kept_back(self, block: Block) -> None:
        """A block does not go on. The receiver's table stays as it is, so the sender's later ones could not be read."""
        if block.stateful:
            self.rewrites = True

    def written(self, piece: Piece, framed: HeaderBlock, block: Block, edits: Edits | None = None) -> bytes | None:
        """The frames of a block with a rule's changes; None where they are as they came."""
        if edits is not None:
            self.rewrites = True
        if not self.rewrites:
            return None
        never, fields = block.never_indexed, block.fields
        if edits is not None:
            never, fields = never | frozenset(edits.add), edited(block, edits)
        fragment = encode(fields, never, _NO_TABLE)
        self._rewritten += len(fragment)
        if self._rewritten > _MAX_REWRITTEN:
            raise http2.FrameError(ErrorCode.ENHANCE_YOUR_CALM, "header blocks that stand for far more than they are")
        if piece.type == http2.PUSH_PROMISE:
            return http2.push_promise_frames(piece.stream, framed.promised, fragment)
        return http2.headers_frames(piece.flags, piece.stream, fragment, framed.priority)

    def answer(self, stream: int, fields: tuple[Field, ...], body: bytes) -> None:
        """Insert an answer of our own. Where the sender owes a smaller table (RFC 7541, section 4.2) it says so first."""
        sizes: tuple[int, ...] = ()
        if self.rewrites:
            sizes = _NO_TABLE
        elif self._least < self.decoder.size:
            sizes = (self._least, self._acknowledged) if self._least < self._acknowledged else (self._least,)
        end = 0 if body else http2.END_STREAM
        self.insert(http2.headers_frames(end, stream, encode(fields, table_sizes=sizes)))
        if body:
            self.insert(http2.frame(http2.DATA, http2.END_STREAM, stream, body))

    def receiver_settings(self, values: list[tuple[int, int]]) -> bytes | None:
        """This direction's receiver announces `values`; returns SETTINGS in their place, or None: as they are."""
        size: int | None = None
        allowed = values
        for at, (identifier, value) in enumerate(values):
            if identifier == Setting.HEADER_TABLE_SIZE:
                size = min(value, MAX_TABLE_SIZE)
                self.decoder.limit = max(self.decoder.limit, size)
                if size < value:
                    # More would be memory that a peer can make us hold. A sender may always use less than is allowed.
                    allowed = [*allowed[:at], (identifier, size), *allowed[at + 1 :]]
            elif identifier == Setting.MAX_FRAME_SIZE:
                self._walk.max_frame_size = max(self._walk.max_frame_size, min(value, http2.LARGEST_FRAME_SIZE))
        if len(self._sent_sizes) >= _MAX_UNACKNOWLEDGED:
            raise http2.FrameError(ErrorCode.ENHANCE_YOUR_CALM, "too many SETTINGS that nobody acknowledged")
        self._sent_sizes.append(size)
        return None if allowed is values else http2.settings_frame(allowed)

    def acknowledged(self) -> None:
        """This direction's sender acknowledges the receiver's oldest SETTINGS."""
        size = self._sent_sizes.popleft() if self._sent_sizes else None
        if size is not None:
            self._acknowledged = size
            self._least = min(self._least, size)

    def _put_run(self, start: int, end: int) -> None:
        if start < end:
            buffer = self._walk.buffer
            self._out.append(buffer if end - start == len(buffer) else memoryview(buffer)[start:end])

    def _put_inserts(self) -> None:
        self._out += self._inserts
        self._inserts.clear()
