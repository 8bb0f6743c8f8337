"""HPACK beside the `hpack` package: what one writes the other reads, and both keep the same table."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.wire.hpack import (
    MAX_LIST_SIZE,
    Decoder,
    Field,
    HeaderListTooLargeError,
    HPACKError,
    encode,
)
from weir_sidecar.wire.hpack_tables import STATIC

# Few names and values, so that tables are hit, and sizes at which entries are evicted.
NAMES = st.sampled_from([b":method", b":path", b"cookie", b"x-a", b"x-b", b"accept"]) | st.binary(max_size=20)
VALUES = st.sampled_from([b"GET", b"/", b"", b"one", b"z" * 900]) | st.binary(max_size=80)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=12)
STEPS = st.lists(
    st.tuples(FIELDS, st.booleans(), st.none() | st.integers(0, 4096), st.booleans()), min_size=1, max_size=12
)


@given(STEPS)
def test_reads_what_an_encoder_with_a_table_writes(steps):
    encoder, decoder = hpack.Encoder(), Decoder()
    for fields, huffman, size, twice in steps:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(fields, huffman=huffman)
        assert list(decoder.decode(block).fields) == fields
        if twice:
            again = encoder.encode(fields, huffman=huffman)
            assert list(decoder.decode(again).fields) == fields


@given(FIELDS)
def test_what_it_writes_needs_and_changes_no_table(fields):
    block = encode(fields)
    assert [tuple(field) for field in hpack.Decoder().decode(block, raw=True)] == fields
    read = Decoder().decode(block)
    assert (list(read.fields), read.stateful) == (fields, False)


@given(st.binary(max_size=200))
def test_noise_is_read_as_the_other_decoder_reads_it_or_refused(noise):
    theirs: list[Field] | None
    try:
        theirs = [tuple(field) for field in hpack.Decoder(MAX_LIST_SIZE).decode(noise, raw=True)]
    except (hpack.HPACKError, IndexError):
        theirs = None
    try:
        mine = list(Decoder().decode(noise).fields)
    except HPACKError:
        return  # stricter is allowed
    assert mine == theirs


def test_secrets_stay_secrets():
    fields = [(b"authorization", b"s"), (b"x", b"y")]
    block = Decoder().decode(encode(fields, frozenset(fields[:1])))
    assert block.never_indexed == {(b"authorization", b"s")}


def test_every_static_field_is_one_byte():
    for number, field in enumerate(STATIC, 1):
        if field[1]:
            assert encode([field]) == bytes([0x80 | number])
        assert Decoder().decode(bytes([0x80 | number])).fields == (field,)


def test_a_memo_does_not_outlive_the_table_it_was_made_with():
    encoder, decoder = hpack.Encoder(), Decoder()
    decoder.decode(encoder.encode([(b"a", b"1")]))
    assert decoder.decode(b"\xbe").fields == ((b"a", b"1"),)
    assert decoder.decode(b"\xbe").fields == ((b"a", b"1"),)
    decoder.decode(encoder.encode([(b"b", b"2")]))
    assert decoder.decode(b"\xbe").fields == ((b"b", b"2"),)


REFUSED = {
    "index 0": b"\x80",
    "an index beyond the tables": b"\xbe",
    "an index of many bytes": b"\xff\xff\xff\xff\xff\xff\x01",
    "a literal that is cut": b"\x40\x01a",
    "a string longer than the block": b"\x00\x05ab",
    "a size above what is allowed": b"\x3f\xe2\x1f",
    "a size update after a field": b"\x82\x20",
    "three size updates": b"\x20\x20\x20",
    "Huffman with a padding of zeros": b"\x00\x81\x00\x00",
    "Huffman with eight bits of padding": b"\x00\x82\x1f\xff\x00",
    "the end-of-string symbol": b"\x00\x84\xff\xff\xff\xff\x00",
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    with pytest.raises(HPACKError):
        Decoder().decode(REFUSED[case])


def test_a_bomb_is_refused_before_it_is_unpacked():
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000)  # one entry of 4000 bytes
    with pytest.raises(HeaderListTooLargeError):
        decoder.decode(b"\xbe" * 100)


def test_a_table_is_no_larger_than_was_chosen():
    decoder = Decoder()
    for number in range(1000):
        decoder.decode(b"\x40\x04" + b"%04d" % number + b"\x01v")
    assert decoder._used <= decoder.size
    decoder.decode(b"\x20")
    assert (decoder._used, decoder._table) == (0, [])
