"""The answer of the config stream: whole whatever the portions it comes in, and refused where it is doubtful."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.wire.http_answer import MAX_HEAD, AnswerError, AnswerReader, Head, LineReader, chunk

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


def portions(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def body_of(*parts: bytes) -> bytes:
    reader = AnswerReader()
    return b"".join(reader.feed(part) for part in parts)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(0, 10_000), max_size=20))
def test_chunks_are_put_together_whatever_the_portions(pieces: list[bytes], cuts: list[int]) -> None:
    reader = AnswerReader()
    data = HEAD + b"".join(map(chunk, pieces)) + b"0\r\n\r\n"
    assert b"".join(map(reader.feed, portions(data, cuts))) == b"".join(pieces)
    assert reader.head == Head(200, chunked=True, length=None)
    assert reader.ended


@given(
    st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")), max_size=8),
    st.lists(st.integers(0, 999)),
)
def test_lines_are_put_together_whatever_the_portions(lines: list[bytes], cuts: list[int]) -> None:
    reader = LineReader(100)
    data = b"".join(line + b"\n" for line in lines) + b"the rest"
    assert [line for part in portions(data, cuts) for line in reader.feed(part)] == lines


@given(st.binary(max_size=400), st.lists(st.integers(0, 999), max_size=5), st.sampled_from([b"", HEAD]))
def test_garbage_is_read_or_refused_and_nothing_else(data: bytes, cuts: list[int], before: bytes) -> None:
    reader, lines = AnswerReader(), LineReader(50)
    try:
        for part in portions(before + data, cuts):
            lines.feed(reader.feed(part))
        reader.finish()
    except AnswerError:
        return
    assert reader.ended


def test_each_byte_alone() -> None:
    data = HEAD + b"5;name=value\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"
    assert body_of(*(data[i : i + 1] for i in range(len(data)))) == b"hello"


def test_a_body_of_known_length() -> None:
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nhel") == b"hel"
    assert not reader.ended
    assert reader.feed(b"lo") == b"lo"
    assert reader.ended


def test_an_empty_body() -> None:
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n") == b""
    assert reader.ended


def test_a_body_until_the_end() -> None:
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 502 Bad\r\n\r\nhello") == b"hello"
    assert not reader.ended
    reader.finish()
    assert reader.ended


def test_interim_answers_are_passed_over() -> None:
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + chunk(b"x")) == b"x"
    assert reader.head == Head(200, chunked=True, length=None)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", "status line"),
        (b"SSH-2.0-x\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "header field"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "twice"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "after the end"),
        (b"X" * (MAX_HEAD + 1), "more than"),
        (b"HTTP/1.1 200 OK\r\na:" + b" " * 15000 + b"\x01\r\n\r\n", "header field"),  # in one pass
        (HEAD + b"-1\r\n", "length"),
        (HEAD + b"0x5\r\nhello\r\n", "length"),
        (HEAD + b"1\r\nab\r\n", "longer"),
        (HEAD + b"1" * 2000, "more than"),
        (HEAD + b"100000000\r\n", "length"),
        (HEAD + b"0\r\n" + b"A: b\r\n" * 6000, "trailer"),
        (HEAD + b"0\r\n\r\nmore", "after the end"),
    ],
)
def test_what_is_doubtful_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(AnswerError, match=words):
        AnswerReader().feed(data)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", HEAD, HEAD + b"5\r\nhel", HEAD + b"0\r\n"])
def test_an_answer_that_is_cut_short_is_not_whole(data: bytes) -> None:
    reader = AnswerReader()
    reader.feed(data)
    with pytest.raises(AnswerError, match="middle"):
        reader.finish()


def test_a_line_is_bounded_whole_or_not() -> None:
    assert LineReader(5).feed(b"12345\n12345") == [b"12345"]
    for data in (b"123456\n", b"123456", b"1\n123456\n1"):
        with pytest.raises(AnswerError, match="more than 5"):
            LineReader(5).feed(data)
