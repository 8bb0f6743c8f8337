"""The full screen on a terminal: it comes up, shows what comes, obeys, and leaves the terminal as it was."""

import signal
import sys

import pytest

from lab import records
from lab.vt52 import Terminal, resized


def live(*arguments, **terminal):
    start = "from weir_cli.main import main; raise SystemExit(main())"
    return Terminal([sys.executable, "-c", start, "flows", *map(str, arguments), "--live"], **terminal)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"".join(records.line(records.flow(number)) for number in range(1, 31)) + b"no record\n")
    return path


def test_it_comes_up_shows_what_comes_obeys_and_goes(file):
    with live(file) as terminal:
        terminal.expect("TIME", "DESTINATION", "30 records", "1 lines are no records", "following", "q quit")
        with file.open("ab") as more:
            more.write(records.line(records.request(1, 31, path="/new")))
        terminal.expect("31 records", "GET example.com/new")
        terminal.type(b"\r")
        terminal.expect("REQUEST", "https://example.com/new", "--curl 3f0a-1f/1")
        terminal.type(b"\x1b")
        terminal.expect("following", "DESTINATION")
        terminal.type(b"/path:/nxw")
        terminal.expect("filter: path:/nxw")
        terminal.type(b"\x7f\x7few\r")
        terminal.expect("1 of 31 records, filter: path:/new")
        resized(terminal, 90, 8)
        terminal.expect("1 of 31 records", "q quit")
        assert len(terminal.text.splitlines()) == 8
        terminal.type(b"q")
        assert terminal.status() == 0
        assert terminal.as_it_was


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_quietly(file, number, status):
    with live(file, "--filter", "id:*-1e") as terminal:
        terminal.expect("1 of 30 records, filter: id:*-1e")
        terminal.signal(number)
        assert terminal.status() == status
        assert "Traceback" not in terminal.text
        assert terminal.as_it_was


@pytest.mark.parametrize("term", ["dumb", "no-such-terminal"])
def test_a_terminal_that_cannot_is_named(file, term):
    with live(file, term=term, columns=200) as terminal:
        assert terminal.status() == 1
        terminal.expect(f"TERM is '{term}'", "--follow")
        assert terminal.as_it_was


def test_keys_of_another_terminal_than_term_names_are_known_or_ignored(file):
    with live(file) as terminal:
        terminal.expect("30 records")
        # Home, End, and function keys of xterm, Linux and rxvt; vt52 knows none.
        terminal.type(b"/d\x1b[1~a\x1b[4~e\x1b[15;2~\x1bOP\x1b[Hx\x1b[F!")
        terminal.expect("filter: xade!")
        terminal.type(b"\x1b")
        terminal.expect("q quit")
