"""Header compression of HTTP/2 (RFC 7541): reads blocks as their receiver will, and writes blocks that need no state.

A `Decoder` follows one direction of one connection and must be given each of its blocks. `encode` refers to nothing but
the static table, so what it writes can be put between a peer's own blocks, or in their place, in any order.
"""

from collections.abc import Iterable

import msgspec

from weir_sidecar.wire.hpack_tables import EOS_BITS, HUFFMAN, STATIC

type Field = tuple[bytes, bytes]

DEFAULT_TABLE_SIZE = 4096
"""SETTINGS_HEADER_TABLE_SIZE until another is announced (RFC 9113, section 6.5.2)."""
MAX_TABLE_SIZE = 65536
"""No larger dynamic table is kept, whatever a receiver would allow."""
MAX_LIST_SIZE = 262144
"""Of one header list, counted as SETTINGS_MAX_HEADER_LIST_SIZE is: 32 bytes for each field, and its bytes."""
FIELD_OVERHEAD = 32

_FIRST_DYNAMIC = len(STATIC) + 1
_MEMO_BLOCKS = 32
_MEMO_BLOCK_BYTES = 1024
_HUFFMAN_STEPS = 4096
_INTEGER_BITS = 28
_PADDING = frozenset((1 << bits) - 1 for bits in range(1, 9))
"""What may be left of a Huffman string: fewer than eight bits, all ones (behind a leading one that marks their number)."""


class HPACKError(ValueError):
    """A block that cannot be decoded: COMPRESSION_ERROR; nothing later of its connection can be, either."""


class HeaderListTooLargeError(HPACKError):
    """A header list of more than `MAX_LIST_SIZE`: a block may be much smaller than what it stands for."""


class Block(msgspec.Struct, frozen=True, gc=False):
    """A decoded header block."""

    fields: tuple[Field, ...]
    never_indexed: frozenset[Field] = frozenset()
    """Fields that whoever passes them on must not index either (section 6.2.3): secrets."""
    table_sizes: tuple[int, ...] = ()
    """Dynamic table size updates at the block's beginning (section 6.3)."""
    stateful: bool = False
    """Whether it changed the dynamic table: later blocks cannot be read by who has not read this one."""


class _Known(msgspec.Struct, frozen=True, gc=False):
    """A block that was read before: what it says, what it inserts, and whether it refers to the dynamic table."""

    block: Block
    inserted: tuple[Field, ...]
    refers: bool


class Decoder:
    """Reads the blocks of one direction, in order. `limit`: the most that the receiver ever allowed as table size."""

    __slots__ = ("_dynamic", "_inserted", "_memo", "_refers", "_table", "_used", "limit", "size")

    def __init__(self) -> None:
        self.limit = DEFAULT_TABLE_SIZE
        self.size = DEFAULT_TABLE_SIZE
        """What the encoder chose."""
        self._table: list[Field] = []
        """Newest last."""
        self._used = 0
        # In steady state a connection says the same few blocks again and again. They mean the same while the table stays
        # as it is, or always, where they do not refer to it: this is what makes reading them cheap.
        self._memo: dict[bytes, _Known] = {}
        self._dynamic: list[bytes] = []
        """Those of them that refer to the table."""
        self._refers = False
        self._inserted: list[Field] = []

    def decode(self, data: bytes) -> Block:
        """Read one block. Raises `HPACKError`; no other block can be read after that."""
        known = self._memo.get(data)
        if known is not None:
            for field in known.inserted:
                self._insert(field)
            return known.block
        self._refers = False
        self._inserted = []
        try:
            block = self._decode(data)
        except IndexError:
            raise HPACKError("the block ends in the middle of a field, or refers to an entry that is not") from None
        if len(data) <= _MEMO_BLOCK_BYTES and not block.table_sizes:
            self._remember(data, _Known(block, tuple(self._inserted), self._refers))
        return block

    def _remember(self, data: bytes, known: _Known) -> None:
        if len(self._memo) >= _MEMO_BLOCKS:
            self._memo.clear()
            self._dynamic.clear()
        if known.refers:
            if known.inserted:
                return
            self._dynamic.append(data)
        self._memo[data] = known

    def _decode(self, data: bytes) -> Block:
        at, sizes = self._read_sizes(data)
        fields: list[Field] = []
        never: set[Field] = set()
        stateful = bool(sizes)
        left, end = MAX_LIST_SIZE, len(data)
        while at < end:
            first = data[at]
            if first & 0x80:
                index, at = _integer(data, at, 7)
                field = self._entry(index)
            elif first & 0x40:
                field, at = self._literal(data, at, 6)
                stateful |= self._insert(field)
                self._inserted.append(field)
            elif first & 0x20:
                raise HPACKError("a table size update comes after a field")
            else:
                field, at = self._literal(data, at, 4)
                if first & 0x10:
                    never.add(field)
            left -= len(field[0]) + len(field[1]) + FIELD_OVERHEAD
            if left < 0:
                raise HeaderListTooLargeError(f"a header list of more than {MAX_LIST_SIZE} bytes")
            fields.append(field)
        return Block(tuple(fields), frozenset(never), sizes, stateful)

    def _read_sizes(self, data: bytes) -> tuple[int, tuple[int, ...]]:
        at = 0
        sizes: list[int] = []
        while at < len(data) and data[at] & 0xE0 == 0x20:
            size, at = _integer(data, at, 5)
            if size > self.limit:
                raise HPACKError(f"a table size of {size} where {self.limit} is allowed")
            self.size = size
            self._evict(0)
            self._memo.clear()
            self._dynamic.clear()
            sizes.append(size)
        if len(sizes) > 2:  # section 4.2: the smallest since the last block, and the final one
            raise HPACKError(f"{len(sizes)} table size updates in one block")
        return at, tuple(sizes)

    def _entry(self, index: int) -> Field:
        if index >= _FIRST_DYNAMIC:
            self._refers = True
            return self._table[-(index - _FIRST_DYNAMIC + 1)]
        if index == 0:
            raise HPACKError("index 0")
        return STATIC[index - 1]

    def _literal(self, data: bytes, at: int, bits: int) -> tuple[Field, int]:
        index, at = _integer(data, at, bits)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _string(data, at)
        value, at = _string(data, at)
        return (name, value), at

    def _insert(self, field: Field) -> bool:
        """Whether the table is another than before."""
        size = len(field[0]) + len(field[1]) + FIELD_OVERHEAD
        changed = bool(self._table)
        if self._used + size > self.size:
            self._evict(size)
        if size <= self.size:  # section 4.4: a larger one empties the table, and is not an error
            self._table.append(field)
            self._used += size
            changed = True
        if changed and self._dynamic:
            self._forget()
        return changed

    def _evict(self, coming: int) -> None:
        """Make room, from the oldest on."""
        table, used, most = self._table, self._used + coming, self.size
        gone = 0
        while used > most and gone < len(table):
            name, value = table[gone]
            used -= len(name) + len(value) + FIELD_OVERHEAD
            gone += 1
        del table[:gone]
        self._used = used - coming

    def _forget(self) -> None:
        """What refers to the table may mean something else now."""
        for data in self._dynamic:
            self._memo.pop(data, None)
        self._dynamic.clear()


def encode(
    fields: Iterable[Field], never_indexed: frozenset[Field] = frozenset(), table_sizes: Iterable[int] = ()
) -> bytes:
    """Write a block that neither needs nor changes a dynamic table. `table_sizes` come first, as updates."""
    out = bytearray()
    for size in table_sizes:
        _put_integer(out, size, 5, 0x20)
    for field in fields:
        index = _STATIC_FIELDS.get(field)
        if index is not None:
            out.append(0x80 | index)
            continue
        name, value = field
        flags = 0x10 if field in never_indexed else 0
        index = _STATIC_NAMES.get(name, 0)
        _put_integer(out, index, 4, flags)
        if not index:
            _put_integer(out, len(name), 7, 0)
            out += name
        _put_integer(out, len(value), 7, 0)
        out += value
    return bytes(out)


def _integer(data: bytes, at: int, bits: int) -> tuple[int, int]:
    """Section 5.1: the number at `at`, and where it ends. Raises IndexError where the data does first."""
    most = (1 << bits) - 1
    value = data[at] & most
    at += 1
    if value < most:
        return value, at
    for shift in range(0, _INTEGER_BITS, 7):
        byte = data[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HPACKError("a number of more than 28 bits")


def _put_integer(out: bytearray, value: int, bits: int, flags: int) -> None:
    most = (1 << bits) - 1
    if value < most:
        out.append(flags | value)
        return
    out.append(flags | most)
    value -= most
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    coded = data[at] & 0x80
    length, at = _integer(data, at, 7)
    end = at + length
    if end > len(data):
        raise HPACKError("a string goes on after the end of its block")
    text = data[at:end]
    return (_unhuffman(text) if coded else text), end


def _codes() -> dict[int, int]:
    """Symbol by code, with a one before the code's first bit that marks its length."""
    codes: dict[int, int] = {}
    code = before = 0
    for length, symbols in HUFFMAN.items():
        code <<= length - before
        before = length
        for symbol in symbols:
            codes[1 << length | code] = symbol
            code += 1
    return codes


_CODES = _codes()
_EOS = (1 << EOS_BITS + 1) - 1
_steps: dict[int, tuple[bytes, int]] = {}
"""What a byte adds to a string and leaves over, by what the bytes before left over; filled by what traffic needs."""

_STATIC_FIELDS = {field: number for number, field in enumerate(STATIC, 1) if field[1]}
_STATIC_NAMES = {name: number for number, (name, _) in reversed(list(enumerate(STATIC, 1)))}


def _unhuffman(data: bytes) -> bytes:
    """Section 5.2 and appendix B. Raises `HPACKError`."""
    out: list[bytes] = []
    state = 1
    for byte in data:
        step = _steps.get(state << 8 | byte) or _step(state, byte)
        out.append(step[0])
        state = step[1]
    if state not in _PADDING:
        raise HPACKError("a Huffman string is not padded with fewer than eight ones")
    return b"".join(out)


def _step(state: int, byte: int) -> tuple[bytes, int]:
    out = bytearray()
    code = state
    for bit in range(7, -1, -1):
        code = code << 1 | byte >> bit & 1
        symbol = _CODES.get(code)
        if symbol is not None:
            out.append(symbol)
            code = 1
        elif code == _EOS:
            raise HPACKError("the end-of-string symbol in a Huffman string")
    if len(_steps) >= _HUFFMAN_STEPS:
        _steps.clear()
    _steps[state << 8 | byte] = step = (bytes(out), code)
    return step
