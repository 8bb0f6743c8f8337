"""`weir exceptions`: through a running sidecar's socket, and on the file of one that has ended."""

import asyncio
import json
import os
import threading
from contextlib import contextmanager

import pytest

from weir_cli.commands import exceptions
from weir_cli.main import main
from weir_cli.pod import names
from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.trust import State
from weir_sidecar.core.tls_outcome import Outcome
from weir_sidecar.core.trust_cache import Bypass, TrustCache
from weir_sidecar.core.trust_dump import Dump, encode
from weir_sidecar.core.trust_entry import Entry
from weir_sidecar.edge.admin import Admin, AdminRoutes, DoorKind, open_control_socket
from weir_sidecar.edge.metrics import Metrics
from weir_sidecar.edge.records import RecordSink

JA4 = "t13d1516h2_8daaf6152771_b186095e22b6"
NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def learned(*hosts):
    """A cache whose client sent alert 48 for each host."""
    cache = TrustCache(FailOpen(), "shop", authority="ca")
    for host in hosts:
        cache.report(cache.admit(host, 1000, JA4, NOW).ticket, Outcome.DISTRUSTED, 48, NOW)
    return cache


@pytest.fixture
def state(tmp_path):
    (tmp_path / "sidecar").mkdir(mode=0o700)
    return tmp_path


@pytest.fixture
def ended(state):
    """The state directory of a run that has ended."""
    (state / "sidecar" / "trust.json").write_bytes(learned("a.example", "b.example").dump(NOW))
    return state


def reread(state):
    return TrustCache.load((state / "sidecar" / "trust.json").read_bytes(), FailOpen())


@contextmanager
def sidecar(state, cache):
    """A sidecar that serves its control socket in a thread."""
    loop = asyncio.new_event_loop()
    descriptor = os.open(state / "sidecar", os.O_PATH)
    routes = AdminRoutes(
        ready=bool, metrics=bytes, config=bytes,
        trust=lambda: cache.dump(NOW), change=lambda change: change.apply(cache, NOW),
    )  # fmt: skip
    admin = Admin(loop, routes, RecordSink(loop, Metrics("1"), print), {os.getuid()})
    admin.serve(open_control_socket(descriptor), DoorKind.CONTROL)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(admin.close)
        loop.call_soon_threadsafe(lambda: loop.call_later(0.01, loop.stop))
        thread.join()
        loop.close()
        os.close(descriptor)


def listed(state, capsys):
    assert main(["exceptions", "list", "--state", str(state), "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_list_as_json(ended, capsys):
    entries = listed(ended, capsys)
    first = next(entry for entry in entries if entry["host"] == "a.example")
    assert first["state"] == "bypassed"
    assert first["reason"] == "client_distrusts_ca"
    assert (first["uid"], first["ja4"], first["alert"], first["failures"]) == (1000, JA4, 48, 1)
    assert first["last_seen"] == "2026-01-01T00:00:00Z"
    assert first["expires_at"] == "2026-01-01T01:00:00Z"
    assert first["trusted_at"] is None


def test_list_as_table(ended, capsys):
    assert main(["exceptions", "list", "--state", str(ended)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["HOST", "UID", "JA4", "STATE", "REASON"]
    line = next(line for line in lines if line.startswith("a.example"))
    assert line.split() == [
        "a.example", "1000", JA4, "bypassed", "client_distrusts_ca", "48", "1", "0",
        "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z",
    ]  # fmt: skip


def test_nothing_learned_is_said(state, capsys):
    assert listed(state, capsys) == []
    assert main(["exceptions", "list", "--state", str(state)]) == 0
    assert capsys.readouterr().out.startswith("nothing is known yet")


def test_words_are_written_for_the_next_run(ended, capsys):
    at = ["--state", str(ended)]
    assert main(["exceptions", "pin", *at, "B.Example."]) == 0
    assert "pinned b.example" in capsys.readouterr().out
    assert main(["exceptions", "approve", "a.example", *at, "--uid", "1000", "--ja4", JA4, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"word": "approve", "host": "a.example", "uid": 1000, "ja4": JA4}
    cache = reread(ended)
    assert isinstance(cache.admit("b.example", 7, None, NOW), Bypass)
    assert not isinstance(cache.admit("a.example", 1000, JA4, NOW), Bypass)
    assert main(["exceptions", "forget", *at, "b.example"]) == 0
    assert "b.example" not in {entry["host"] for entry in listed_after(ended, capsys)}


def listed_after(state, capsys):
    capsys.readouterr()
    return listed(state, capsys)


def test_a_word_may_come_before_anything_is_known(state):
    assert main(["exceptions", "pin", "--state", str(state), "example.com"]) == 0
    assert isinstance(reread(state).admit("example.com", None, None, NOW), Bypass)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_the_file_stays_the_proxys_and_private(ended):
    os.chown(ended / "sidecar", 15801, 15802)
    assert main(["exceptions", "pin", "--state", str(ended), "example.com"]) == 0
    found = (ended / "sidecar" / "trust.json").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (15801, 15802, 0o600)


def test_a_large_cache_loses_nothing_by_a_word(state):
    entries = tuple(Entry(host=f"h{number}.example", state=State.TRUSTED) for number in range(5000))
    (state / "sidecar" / "trust.json").write_bytes(encode(Dump(entries=entries)))
    assert main(["exceptions", "pin", "--state", str(state), "example.com"]) == 0
    kept = TrustCache.load((state / "sidecar" / "trust.json").read_bytes(), FailOpen(max_entries=10000))
    assert len(kept.entries(NOW)) == 5001


def test_a_running_sidecar_is_asked_and_acts_at_once(state, capsys):
    cache = learned("a.example")
    with sidecar(state, cache):
        assert {entry["host"] for entry in listed(state, capsys)} == {"a.example", "*"} & {
            entry.host for entry in cache.entries(NOW)
        }
        assert main(["exceptions", "pin", "--state", str(state), "c.example"]) == 0
        assert isinstance(cache.admit("c.example", 5, None, NOW), Bypass)
        assert main(["exceptions", "forget", "--state", str(state), "nobody.example"]) == 1
    assert "nothing is known of nobody.example" in capsys.readouterr().err
    assert not (state / "sidecar" / "trust.json").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["list", "--state", "{tmp}/none"], 1, "none/sidecar: there is no such directory; `weir run --state DIR`"),
        (["list", "--name", "no-such-run"], 1, "/run/weir/no-such-run: there is no such directory"),
        (["list", "--name", "../etc"], 1, "--name is '../etc'"),
        (["forget", "--state", "{tmp}", "nobody.example"], 1, "nothing is known of nobody.example; `weir exceptions"),
        (["forget", "--state", "{tmp}", "a.example", "--uid", "5"], 1, "nothing is known of a.example (uid 5)"),
        (["pin", "--state", "{tmp}", "*"], 2, "name it with --uid or --ja4"),
    ],
)
def test_what_cannot_be_done_is_said_with_what_to_do(ended, capsys, arguments, status, words):
    assert main(["exceptions", *(argument.format(tmp=ended) for argument in arguments)]) == status
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("host", ["", "a b", "*.example.com", "a..b", "x\x1b[2J"])
def test_what_is_no_host_is_refused(ended, host):
    before = (ended / "sidecar" / "trust.json").read_bytes()
    with pytest.raises(SystemExit) as ended_with:
        main(["exceptions", "pin", "--state", str(ended), host])
    assert ended_with.value.code == 2
    assert (ended / "sidecar" / "trust.json").read_bytes() == before


@pytest.mark.parametrize(("host", "known_as"), [("Bücher.example", "xn--bcher-kva.example"), ("::1", "::1")])
def test_hosts_as_the_cache_knows_them(host, known_as):
    assert exceptions._host(host) == known_as


def test_a_damaged_file_is_named_and_left_alone(ended, capsys):
    file = ended / "sidecar" / "trust.json"
    file.write_bytes(b'{"version":1}')
    for arguments in (["list"], ["pin", "example.com"]):
        assert main(["exceptions", *arguments, "--state", str(ended)]) == 1
        assert "trust.json: trust cache: " in capsys.readouterr().err
    assert file.read_bytes() == b'{"version":1}'


@pytest.mark.parametrize("arguments", [["list"], ["pin", "example.com"]])
def test_by_name_only_a_running_sidecar_is_asked(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.setattr(names, "RUNTIME", tmp_path)
    (tmp_path / "shop").mkdir()
    assert main(["exceptions", *arguments, "--name", "shop"]) == 1
    assert "shop: no sidecar serves there; a run with --state DIR is reached by --state DIR" in capsys.readouterr().err
    assert list((tmp_path / "shop").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another UID")
def test_who_may_not_is_told_who_may(ended, capsys):
    os.seteuid(45678)
    try:
        status = main(["exceptions", "list", "--state", str(ended)])
    finally:
        os.seteuid(0)
    assert status == 1
    assert "permission denied; it belongs to the proxy: run this as root" in capsys.readouterr().err
