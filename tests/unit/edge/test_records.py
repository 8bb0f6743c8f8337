"""The record sink: whole lines, in order, batched, and what cannot be delivered is counted."""

import asyncio
import errno
import os
import socket
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.contract.flow import Client, Decision, FlowRecord, Protocol, Reason, encode_record
from weir_sidecar.contract.request import (
    HTTPVersion,
    LoggedBody,
    LoggedMessage,
    MessageVersion,
    RequestDecision,
    RequestRecord,
    Scheme,
)
from weir_sidecar.edge import records as module
from weir_sidecar.edge.metrics import Metrics, RecordSinkKind
from weir_sidecar.edge.records import RING, RING_BYTES, RecordSink, open_record_file, open_stdout


def record(number, pad=""):
    return FlowRecord(
        time="2026-01-01T00:00:00Z", id=str(number), client=Client(), protocol=Protocol.DNS, host="example.com",
        sni=None, address="192.0.2.1", port=53, alpn=None, decision=Decision.PASSTHROUGH, reason=Reason.DEFAULT,
        rule=None, tls=None, bytes_up=1, bytes_down=2, duration_ms=0.5, error=pad or None,
    )  # fmt: skip


def ids(data):
    assert data == b"" or data.endswith(b"\n")
    return [int(msgspec.json.decode(line, type=FlowRecord).id) for line in data.splitlines()]


class Sink:
    """A sink with its surroundings."""

    def __init__(self, file=None):
        self.loop = asyncio.new_event_loop()
        self.metrics = Metrics("1")
        self.warnings = []
        self.sink = RecordSink(self.loop, self.metrics, self.warnings.append, file)

    def take(self, *numbers, pad=""):
        for number in numbers:
            self.sink(record(number, pad))

    def turn(self, seconds=0.0):
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @property
    def lost(self):
        return self.metrics.records_lost[RecordSinkKind.FILE]


@contextmanager
def open_sink(file=None):
    sink = Sink(file)
    try:
        yield sink
    finally:
        sink.sink.close()
        sink.loop.close()


def test_one_turn_of_the_loop_is_one_write(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    path.write_bytes(encode_record(record(0)))
    writes = []
    real = os.write
    monkeypatch.setattr(module.os, "write", lambda fd, data: writes.append(data) or real(fd, data))
    with open_sink(open_record_file(str(path))) as it:
        it.take(1, 2, 3)
        assert writes == []
        it.turn()
        assert len(writes) == 1
        it.take(4)
    assert ids(path.read_bytes()) == [0, 1, 2, 3, 4]
    assert (it.lost, it.warnings) == (0, [])


def test_the_ring_has_the_last_ones_in_order():
    with open_sink() as it:
        it.take(*range(RING + 5))
        assert ids(b"".join(it.sink.last())) == list(range(5, RING + 5))
        assert ids(b"".join(it.sink.last(2))) == [RING + 3, RING + 4]
        assert it.sink.last(0) == []


def test_followers_get_what_comes_after_they_came_and_the_loss_is_theirs():
    with open_sink() as it:
        got = []
        it.take(1)
        end = it.sink.follow(lambda lines: got.extend(lines) or 0)
        it.sink.follow(len)  # takes none
        it.take(2, 3)
        it.turn()
        end()
        it.take(4)
        it.turn()
        assert ids(b"".join(got)) == [2, 3]
        assert it.metrics.records_lost == {RecordSinkKind.FILE: 0, RecordSinkKind.FOLLOWER: 3}


def test_every_record_is_counted_in_the_metrics():
    with open_sink() as it:
        it.take(1, 2)
        assert b'weir_flows_total{protocol="dns",decision="passthrough",reason="default"} 2' in it.metrics.render()


def test_a_full_disk_is_said_once_and_counted():
    with open_sink(os.open("/dev/full", os.O_WRONLY)) as it:
        it.take(1, 2)
        it.turn()
        it.take(3)
        it.turn()
        assert it.lost == 3
        assert it.warnings == ["flow records are being lost: the record file takes no more: No space left on device"]


def test_a_reader_that_went_away_is_counted():
    reader, writer = os.pipe()
    os.close(reader)
    with open_sink(writer) as it:
        it.take(1)
        it.turn()
        assert it.lost == 1
        assert "Broken pipe" in it.warnings[0]


@given(st.lists(st.one_of(st.integers(1, 700), st.sampled_from(["full", "later"])), max_size=12))
def test_only_whole_lines_whatever_the_file_takes(outcomes):
    """`outcomes`: what each write does; when they are used up all is taken."""
    file = bytearray()
    script = list(outcomes)

    def write(_, data):
        outcome = script.pop(0) if script else len(data)
        if outcome == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if outcome == "later":
            raise BlockingIOError
        file.extend(data[:outcome])
        return min(outcome, len(data))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.os, "write", write)
        patch.setattr(module.os, "close", lambda _: None)
        patch.setattr(module, "_RETRY", 0)
        with open_sink(99) as it:
            for number in range(6):
                it.take(number, pad="x" * 40 * (number % 3))
                it.turn()
            script.clear()
    found = ids(bytes(file))
    assert found == sorted(set(found))
    assert len(found) + it.lost == 6
    if "full" not in outcomes:
        assert it.lost == 0


def test_a_slow_pipe_is_waited_for_without_blocking(tmp_path):
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    pad = "x" * 1000
    got = b""
    with open_sink(open_record_file(path)) as it:
        it.take(*range(400), pad=pad)
        it.turn()
        while len(got.splitlines()) < 400 or not got.endswith(b"\n"):
            try:
                got += os.read(reader, 1 << 20)
            except BlockingIOError:
                it.turn(0.01)
    os.close(reader)
    assert ids(got) == list(range(400))
    assert it.lost == 0


def test_a_pipe_that_nobody_reads_costs_bounded_memory(monkeypatch):
    monkeypatch.setattr(module, "FILE_BACKLOG", 2000)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        pass
    with open_sink(writer) as it:
        it.take(*range(100))
        it.turn()
        size = len(encode_record(record(10)))
        assert it.lost >= 100 - 2000 // (size - 1)
        before = it.lost
    assert before < it.lost == 100
    assert it.warnings == ["flow records are being lost: the record file takes no more: the reader does not keep up"]
    os.close(reader)


def test_after_closing_records_still_reach_ring_and_metrics(tmp_path):
    path = tmp_path / "records.jsonl"
    with open_sink(open_record_file(str(path))) as it:
        it.sink.close()
        it.take(1)
        it.turn()
    assert len(it.sink.last()) == 1
    assert path.read_bytes() == b""


def on_stdout(target, work):
    """Do `work` in a forked child whose standard output and error are `target`; its result."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.write(writer, repr(work()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result = pipe.read()
    os.waitpid(child, 0)
    return result.decode()


def opened():
    """Whether the records' descriptor blocks, and whether standard error still does."""
    descriptor = open_stdout()
    os.write(descriptor, b"line\n")
    return os.get_blocking(descriptor), os.get_blocking(2)


def test_records_on_standard_output_do_not_block_and_leave_standard_error_alone(tmp_path):
    readable, writable = os.pipe()
    assert on_stdout(writable, opened) == "(False, True)"
    assert os.read(readable, 100) == b"line\n"
    os.close(readable)
    os.close(writable)


def test_standard_output_may_be_a_file_that_has_something_in_it(tmp_path):
    path = tmp_path / "log"
    path.write_text("before\n")
    with path.open("ab") as file:
        assert on_stdout(file.fileno(), opened) == "(False, True)"
    assert path.read_text() == "before\nline\n"


def test_standard_output_may_be_a_socket():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert on_stdout(theirs.fileno(), opened)[:7] == "(False,"
        assert ours.recv(100) == b"line\n"


class Told:
    """A request that has ended."""

    def __init__(self, number, *, kept=True, body=None):
        self._number = number
        self._kept = kept
        self._body = body
        self.is_large = body is not None

    def keeps(self, record):
        return self._kept

    def record(self):
        record = RequestRecord(
            time="2026-01-01T00:00:00Z", flow="1", number=self._number, protocol=HTTPVersion.HTTP1,
            scheme=Scheme.HTTP, host="example.com", port=80, method="GET", path="/", status=200, request_bytes=0,
            response_bytes=1, ttfb_ms=1.0, duration_ms=2.0, rule=None, decision=RequestDecision.ALLOW,
        )  # fmt: skip
        if self._body is None:
            return record
        body = LoggedBody(self._body, False, False, None, None)
        return msgspec.structs.replace(record, request=LoggedMessage(MessageVersion.HTTP1_1, body=body))


def names(lines):
    """Flows by their id, requests by their number with #."""
    read = [msgspec.json.decode(line) for line in lines]
    return [f"#{one['number']}" if "record" in one else one["id"] for one in read]


def test_requests_are_gathered_and_come_before_the_flow_that_ends_after_them():
    with open_sink() as sink:
        delivered = []
        sink.sink.follow(lambda lines: delivered.append(names(lines)) or 0)
        sink.sink.request(Told(1))
        sink.sink.request(Told(2))
        sink.turn()
        assert delivered == []
        sink.take(7)
        sink.sink.request(Told(3))
        sink.turn()
        assert delivered == [["#1", "#2", "7", "#3"]]
        sink.sink.request(Told(4))
        sink.turn(0.1)
        assert delivered[1:] == [["#4"]]
        assert b'weir_requests_total{protocol="http/1.1",status="2xx",decision="allow"} 4' in sink.metrics.render()


def test_what_was_gathered_is_among_the_last_and_is_delivered_at_the_end(tmp_path):
    path = tmp_path / "records"
    with open_sink(open_record_file(str(path))) as sink:
        sink.sink.request(Told(1))
        assert names(sink.sink.last()) == ["#1"]
        sink.sink.request(Told(2))
    assert names(path.read_bytes().splitlines()) == ["#1", "#2"]


def test_many_requests_at_once_are_all_told():
    with open_sink() as sink:
        delivered = []
        sink.sink.follow(lambda lines: delivered.extend(names(lines)) or 0)
        for number in range(3000):
            sink.sink.request(Told(number))
        sink.turn(0.1)
        assert delivered == [f"#{number}" for number in range(3000)]


def test_a_request_that_is_not_sampled_is_counted_and_nothing_else():
    with open_sink() as sink:
        sink.sink.request(Told(1, kept=False))
        sink.sink.request(Told(2))
        assert names(sink.sink.last()) == ["#2"]
        assert b'weir_requests_total{protocol="http/1.1",status="2xx",decision="allow"} 2' in sink.metrics.render()


def test_long_records_are_delivered_early_and_the_ring_forgets_them_by_their_size():
    with open_sink() as sink:
        delivered = []
        sink.sink.follow(lambda lines: delivered.append(len(lines)) or 0)
        for number in range(1, 41):
            sink.sink.request(Told(number, body="x" * 400_000))
        assert len(delivered) >= 12
        assert max(delivered) <= 3
        left = sink.sink.last()
        assert names(left)[-1] == "#40"
        assert len(left) > 10
        assert sum(map(len, left)) <= RING_BYTES
