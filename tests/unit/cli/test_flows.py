"""`weir flows`: from a file and from a running sidecar's socket, as a table and as JSON, safely for a terminal."""

import asyncio
import json
import os
import threading
from contextlib import ExitStack, contextmanager

import pytest

from lab import records
from weir_cli.commands import flows
from weir_cli.flows import source
from weir_cli.flows.source import File
from weir_cli.flows.table import amount, printed, row
from weir_cli.main import main
from weir_sidecar.contract.capture import CaptureReason, CaptureRecord, encode_capture
from weir_sidecar.contract.flow import Client, encode_record
from weir_sidecar.contract.request import RequestDecision, encode_request
from weir_sidecar.edge.admin import Admin, AdminRoutes, DoorKind, open_control_socket
from weir_sidecar.edge.metrics import Metrics
from weir_sidecar.edge.records import RecordSink


def record(number, **changes):
    return records.flow(**{"id": str(number), **changes})


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
    assert " ".join(head.split()) == "TIME ID CLIENT PROTO DESTINATION DECISION REASON UP DOWN MS"
    assert " ".join(line.split()) == "10:20:30.456 29 uid 1000 tls example.com:443 intercept rule (web) 10 20K 12.3"
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
    assert words in row(records.told(record(1, **changes)), printed(pods=False))


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
    assert "bücher.example:443" in row(records.told(record(1, host="bücher.example")), printed(pods=False))


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (10239, "10239"), (10240, "10K"), (5 << 20, "5120K"), (10 << 20, "10M"), (1 << 40, "1024G")],
)
def test_amounts(count, text):
    assert amount(count) == text


def test_a_line_that_is_no_record_is_named_and_the_others_are_shown(file, capsys):
    with file.open("ab") as more:
        more.write(b'{"oops":1}\nnot json\n\xff\n' + encode_record(record(99)))
    assert main(["flows", str(file), "--last", "4", "-o", "json"]) == 1
    captured = capsys.readouterr()
    assert shown_ids(captured.out) == [99]
    assert captured.err.count("not a flow record") == 3


def test_what_is_told_of_capture_stands_beside_the_records(file, capsys):
    with file.open("ab") as more:
        more.write(
            encode_capture(CaptureRecord("2026-01-02T03:04:05Z", captured=False, reason=CaptureReason.RULES_LOST))
        )
    assert main(["flows", str(file), "--last", "2"]) == 0
    out, err = capsys.readouterr()
    assert "captured" not in out
    assert err == (
        "weir flows: from 2026-01-02T03:04:05Z on the pod is not captured, and its flows have no records: rules_lost\n"
    )


def test_a_line_that_is_being_written_is_not_shown(file, capsys):
    with file.open("ab") as more:
        more.write(encode_record(record(99))[:-5])
    assert main(["flows", str(file), "--last", "1", "-o", "json"]) == 0
    assert shown_ids(capsys.readouterr().out) == [29]


def test_following_a_file_waits_for_whole_lines(file):
    half = encode_record(record(100))
    pieces = [half[:20], half[20:] + encode_record(record(101))]

    def append(_):
        if not pieces:
            return True
        with file.open("ab") as more:
            more.write(pieces.pop(0))
        return False

    with ExitStack() as stack:
        got = [line.record for line in source.lines(File(str(file)), 1, stack, follow=True, pause=append)]
    assert shown_ids(b"".join(got)) == [29, 100, 101]


def test_following_ends_quietly(file, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(source.Event, "wait", interrupt)
    assert main(["flows", str(file), "--follow"]) == 0


def test_a_running_sidecar_shows_its_ring(state, capsys):
    with sidecar(state / "sidecar", map(record, range(30))):
        assert main(["flows", "--state", str(state), "--last", "2", "-o", "json"]) == 0
    assert shown_ids(capsys.readouterr().out) == [28, 29]


def test_following_a_sidecar_until_it_ends(state, capsys, monkeypatch):
    real = flows.table.row
    with sidecar(state / "sidecar", map(record, range(3))) as more:

        def row(one, layout):
            if one.flow_id == "2":
                more(record(3))
            elif one.flow_id == "3":
                raise KeyboardInterrupt
            return real(one, layout)

        monkeypatch.setattr(flows.table, "row", row)
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
    return records.request(number, **{"flow": str(flow), **changes})


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
    assert [row[1] for row in rows] == ["1", "1/1", "1/2", "3", "2/1"]
    assert rows[1][2:7] == ["http/1.1", "GET", "example.com/a?b=*", "allow", "200"]
    assert rows[2][3:8] == ["GET", "example.com/a?b=*", "deny", "403", "(web/no)"]
    assert rows[4][3:8] == ["PUT", "example.com/a?b=*", "allow", "no", "answer"]
    assert main(["flows", str(path), "-o", "json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [json.loads(line) for line in lines]


@pytest.fixture
def mixed(tmp_path):
    """Two flows with two requests each, those of the first refused."""
    path = tmp_path / "mixed.jsonl"
    several = [
        *(records.request(number, 1, path="/a", status=403, decision=RequestDecision.DENY) for number in (1, 2)),
        records.flow(1, client=Client(uid=7)),
        *(records.request(number, 2, path=f"/b?q={'*'}", method="PUT") for number in (1, 3)),
        records.flow(2),
    ]
    path.write_bytes(b"".join(map(records.line, several)))
    return path


def listed(text):
    return [line.split()[1] for line in text.splitlines()[1:]]


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["--filter", "status:403"], ["3f0a-1/1", "3f0a-1/2"]),
        (["--filter", "uid:7"], ["3f0a-1", "3f0a-1/1", "3f0a-1/2"]),
        (["--filter", "is:request", "--last", "3"], ["3f0a-1/2", "3f0a-2/1", "3f0a-2/3"]),
        (["--filter=-decision:deny"], ["3f0a-1", "3f0a-2", "3f0a-2/1", "3f0a-2/3"]),
    ],
)
def test_a_filter(mixed, capsys, arguments, ids):
    assert main(["flows", str(mixed), *arguments]) == 0
    assert listed(capsys.readouterr().out) == ids


def test_a_filter_on_what_follows(mixed, capsys, monkeypatch):
    monkeypatch.setattr(source.Event, "wait", lambda *_: True)
    assert main(["flows", str(mixed), "-f", "--filter", "method:PUT", "-o", "json"]) == 0
    assert [json.loads(line)["number"] for line in capsys.readouterr().out.splitlines()] == [1, 3]


def test_a_filter_that_cannot_be_read(mixed, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["flows", str(mixed), "--filter", "status:often"])
    assert ended.value.code == 2
    assert "status: found 'often'; allowed: a number" in capsys.readouterr().err


def test_an_archive(mixed, tmp_path, capsys):
    path = tmp_path / "out.har"
    assert main(["flows", str(mixed), "--har", str(path)]) == 0
    assert capsys.readouterr().err == f"{path}: 4 requests\n"
    assert path.stat().st_mode & 0o777 == 0o600
    entries = json.loads(path.read_text())["log"]["entries"]
    assert {entry["_weir"]["id"] for entry in entries} == {"3f0a-1/1", "3f0a-1/2", "3f0a-2/1", "3f0a-2/3"}
    assert {entry["serverIPAddress"] for entry in entries} == {"192.0.2.1"}


def test_an_archive_of_some_to_standard_output(mixed, capsys):
    assert main(["flows", str(mixed), "--har", "-", "--filter", "method:PUT", "--last", "1"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["log"]["entries"]
    assert entry["_weir"]["id"] == "3f0a-2/3"


def test_an_archive_without_requests_says_why(file, tmp_path, capsys):
    path = tmp_path / "none.har"
    assert main(["flows", str(file), "--har", str(path)]) == 0
    assert "0 requests; only flows that are intercepted have any" in capsys.readouterr().err
    assert main(["flows", str(file), "--har", str(tmp_path)]) == 1
    assert "Is a directory" in capsys.readouterr().err


def test_a_request_as_curl(mixed, capsys):
    assert main(["flows", str(mixed), "--curl", "3f0a-2/3"]) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        "curl --http1.1 --request PUT \\\n"
        "  'https://example.com/b?q=REDACTED' \\\n"
        "  --resolve example.com:443:192.0.2.1\n"
    )  # fmt: skip
    assert "put in what you need: the value of q in the URL, the header fields" in captured.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("3f0a-2", "3f0a-2 may be any of 3f0a-2/1, 3f0a-2/3"),
        ("3f0a-2/2", "3f0a-2/2: the flow is there, and no such request in it"),
        ("ffff-2/1", "there is no such flow among the records"),
    ],
)
def test_a_name_that_means_no_one_request(mixed, capsys, name, words):
    assert main(["flows", str(mixed), "--curl", name]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err


def test_a_short_name_of_two_flows_is_told_apart_by_the_whole_one(mixed, capsys):
    with mixed.open("ab") as more:
        more.write(encode_request(records.request(3, flow="3f0affffff-2")))
    assert main(["flows", str(mixed), "--curl", "3f0a-2/3"]) == 1
    assert "may be any of 3f0a9c21d7-2/3, 3f0affffff-2/3" in capsys.readouterr().err
    assert main(["flows", str(mixed), "--curl", "3f0affffff-2/3"]) == 0


def test_what_is_no_name_is_refused(mixed, capsys):
    with pytest.raises(SystemExit):
        main(["flows", str(mixed), "--curl", "2/"])
    assert "expected an ID as the table has it, such as 3f0a-1c/2" in capsys.readouterr().err


def test_the_full_screen_needs_a_terminal(mixed, capsys):
    assert main(["flows", str(mixed), "--live"]) == 1
    assert "--live needs a terminal; --follow prints line after line" in capsys.readouterr().err
