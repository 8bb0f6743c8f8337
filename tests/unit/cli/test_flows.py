"""`weir flows`: from a file and from a running sidecar's socket, as a table and as JSON, safely for a terminal."""

import asyncio
import json
import os
import threading
from contextlib import contextmanager

import msgspec
import pytest

from weir_cli.commands import flows
from weir_cli.main import main
from weir_sidecar.contract.flow import Client, Decision, FlowRecord, Protocol, Reason, encode_record
from weir_sidecar.contract.request import HTTPVersion, RequestDecision, RequestRecord, Scheme, encode_request
from weir_sidecar.edge.admin import Admin, AdminRoutes, DoorKind, open_control_socket
from weir_sidecar.edge.metrics import Metrics
from weir_sidecar.edge.records import RecordSink


def record(number, **changes):
    base = FlowRecord(
        time="2026-01-01T10:20:30.456Z", id=str(number), client=Client(uid=1000), protocol=Protocol.TLS,
        host="example.com", sni=None, address="192.0.2.1", port=443, alpn=None, decision=Decision.INTERCEPT,
        reason=Reason.RULE, rule="web", tls=None, bytes_up=10, bytes_down=20480, duration_ms=12.34,
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"".join(encode_record(record(number)) for number in range(30)))
    return path


@contextmanager
def sidecar(directory, records=()):
    """A sidecar's control socket in a thread; yields a function that records one more."""
    loop = asyncio.new_event_loop()
    descriptor = os.open(directory, os.O_PATH)
    sink = RecordSink(loop, Metrics("1"), print)
    routes = AdminRoutes(ready=bool, metrics=bytes, config=bytes, trust=bytes, change=str)
    admin = Admin(loop, routes, sink, {os.getuid()})
    admin.serve(open_control_socket(descriptor), DoorKind.CONTROL)
    for one in records:
        sink(one)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda one: loop.call_soon_threadsafe(sink, one)
    finally:
        loop.call_soon_threadsafe(admin.close)
        loop.call_soon_threadsafe(lambda: loop.call_later(0.01, loop.stop))
        thread.join()
        loop.close()
        os.close(descriptor)


@pytest.fixture
def state(tmp_path):
    """A --state directory whose socket has a path that is too long for a socket's address."""
    directory = tmp_path / ("long" * 30) / "sidecar"
    directory.mkdir(parents=True)
    return directory.parent


def shown_ids(text):
    return [int(json.loads(line)["id"]) for line in text.splitlines()]


def test_a_file_shows_its_last_records(file, capsys):
    assert main(["flows", str(file), "-o", "json"]) == 0
    assert shown_ids(capsys.readouterr().out) == list(range(10, 30))
    assert main(["flows", "--last", "3", "-o", "json", str(file)]) == 0
    assert shown_ids(capsys.readouterr().out) == [27, 28, 29]
    assert main(["flows", "--last", "0", str(file), "-o", "json"]) == 0
    assert capsys.readouterr().out == ""


def test_json_is_the_record(tmp_path, capsys):
    path = tmp_path / "one.jsonl"
    line = encode_record(record(1))
    path.write_bytes(line)
    assert main(["flows", str(path), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(line)


def test_the_table(file, capsys):
    assert main(["flows", str(file), "--last", "1"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == "TIME CLIENT PROTO DESTINATION DECISION REASON UP DOWN MS"
    assert " ".join(line.split()) == "10:20:30.456 uid 1000 tls example.com:443 intercept rule (web) 10 20K 12.3"
    assert head.index("DECISION") == line.index("intercept")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": None}, "192.0.2.1:443"),
        ({"host": None, "address": "2001:db8::1"}, "[2001:db8::1]:443"),
        ({"client": Client(address="10.0.0.9")}, "10.0.0.9"),
        ({"client": Client()}, " ?  "),
        ({"rule": None}, "rule  "),
        ({"error": "connection refused"}, "connection refused"),
    ],
)
def test_what_is_not_known_is_shown_as_what_is(changes, words):
    assert words in flows.row(record(1, **changes))


@pytest.mark.parametrize("evil", ["\x1b[2J", "\x9b31m", "\u202e", "\u200b", "\r", "\n", "\ue000"])
@pytest.mark.parametrize("field", ["host", "error", "rule"])
def test_nothing_that_steers_a_terminal_gets_through(tmp_path, capsys, evil, field):
    path = tmp_path / "evil.jsonl"
    path.write_bytes(encode_record(record(1, **{field: f"a{evil}b"})))
    for output in ("table", "json"):
        assert main(["flows", str(path), "-o", output]) == 0
        shown = capsys.readouterr().out
        assert shown.isascii()
        assert all(char.isprintable() or char == "\n" for char in shown)
        assert len(shown.splitlines()) == (2 if output == "table" else 1)


def test_names_of_other_scripts_stay_readable():
    assert "bücher.example:443" in flows.row(record(1, host="bücher.example"))


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (10239, "10239"), (10240, "10K"), (5 << 20, "5120K"), (10 << 20, "10M"), (1 << 40, "1024G")],
)
def test_amounts(count, text):
    assert flows.amount(count) == text


def test_a_line_that_is_no_record_is_named_and_the_others_are_shown(file, capsys):
    with file.open("ab") as more:
        more.write(b'{"oops":1}\nnot json\n\xff\n' + encode_record(record(99)))
    assert main(["flows", str(file), "--last", "4", "-o", "json"]) == 1
    captured = capsys.readouterr()
    assert shown_ids(captured.out) == [99]
    assert captured.err.count("not a flow record") == 3


def test_a_line_that_is_being_written_is_not_shown(file, capsys):
    with file.open("ab") as more:
        more.write(encode_record(record(99))[:-5])
    assert main(["flows", str(file), "--last", "1", "-o", "json"]) == 0
    assert shown_ids(capsys.readouterr().out) == [29]


def test_following_a_file_waits_for_whole_lines(file, monkeypatch):
    half = encode_record(record(100))
    pieces = [half[:20], half[20:] + encode_record(record(101))]

    def append(_):
        if not pieces:
            raise KeyboardInterrupt
        with file.open("ab") as more:
            more.write(pieces.pop(0))

    monkeypatch.setattr(flows.time, "sleep", append)
    got = []
    with file.open("rb") as opened, pytest.raises(KeyboardInterrupt):
        got.extend(map(got.append, flows._tail(opened, 1, follow=True)))
    assert shown_ids(b"".join(filter(None, got))) == [29, 100, 101]


def test_following_ends_quietly(file, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(flows.time, "sleep", interrupt)
    assert main(["flows", str(file), "--follow"]) == 0


def test_a_running_sidecar_shows_its_ring(state, capsys):
    with sidecar(state / "sidecar", map(record, range(30))):
        assert main(["flows", "--state", str(state), "--last", "2", "-o", "json"]) == 0
    assert shown_ids(capsys.readouterr().out) == [28, 29]


def test_following_a_sidecar_until_it_ends(state, capsys, monkeypatch):
    real = flows.row
    with sidecar(state / "sidecar", map(record, range(3))) as more:

        def row(one, pod):
            assert pod is None
            if one.id == "2":
                more(record(3))
            elif one.id == "3":
                raise KeyboardInterrupt
            return real(one)

        monkeypatch.setattr(flows, "row", row)
        assert main(["flows", "--state", str(state), "--last", "1", "--follow"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{tmp}/no.jsonl"], "no.jsonl: No such file or directory"),
        (["--state", "{tmp}/none"], "none/sidecar: there is no such directory; `weir run --state DIR` makes one"),
        (["--state", "{tmp}/{long}"], "no sidecar serves there; a run with --state DIR is reached by"),
        (["--name", "no-such-run"], "/run/weir/no-such-run: there is no such directory"),
    ],
)
def test_what_cannot_be_had_is_said_with_what_to_do(tmp_path, state, capsys, arguments, words):
    given = [argument.format(tmp=tmp_path, long=state.name) for argument in arguments]
    assert main(["flows", *given]) == 1
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_there_is_one_source_at_most(file, capsys):
    for arguments in ([str(file), "--pod", "p"], [str(file), "--name", "x"], [str(file), "--last", "-1"]):
        with pytest.raises(SystemExit) as ended:
            main(["flows", *arguments])
        assert ended.value.code == 2
    assert "is less than 0" in capsys.readouterr().err


def request(flow, number, **changes):
    base = RequestRecord(
        time="2026-01-01T10:20:31.456Z", flow=str(flow), number=number, protocol=HTTPVersion.HTTP1, scheme=Scheme.HTTPS,
        host="example.com", port=443, method="GET", path="/a?b=*", status=200, request_bytes=0, response_bytes=20480,
        ttfb_ms=1.5, duration_ms=2.34, rule=None, decision=RequestDecision.ALLOW,
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def test_requests_are_shown_below_their_flow(tmp_path, capsys):
    path = tmp_path / "records.jsonl"
    lines = [
        encode_request(request(1, 1)),
        encode_request(request(2, 1, method="PUT", status=None)),
        encode_request(request(1, 2, status=403, decision=RequestDecision.DENY, rule="web/no")),
        encode_record(record(1)),
        encode_record(record(3)),
    ]
    path.write_bytes(b"".join(lines))
    assert main(["flows", str(path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[1] for row in rows] == ["uid", "#1", "#2", "uid", "#1"]
    assert rows[1][1:7] == ["#1", "GET", "example.com/a?b=*", "allow", "200", "0"]
    assert rows[2][2:7] == ["GET", "example.com/a?b=*", "deny", "403", "(web/no)"]
    assert rows[4][2:7] == ["PUT", "example.com/a?b=*", "allow", "no", "answer"]
    assert main(["flows", str(path), "-o", "json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [json.loads(line) for line in lines]
