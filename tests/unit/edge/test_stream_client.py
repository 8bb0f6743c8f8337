"""The sidecar's end of the config stream, against a server that answers, refuses, breaks, lies and is silent."""

import asyncio
import contextlib
import json
import socket
import threading
from contextlib import contextmanager

import msgspec
import pytest

from lab.control_plane import ControlPlane
from lab.pki import Authority
from weir_sidecar.contract.config import Action, SidecarConfig, Stream
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.stream import MAX_LINE, Applied, Exceptions, Health, Hello, NewConfig
from weir_sidecar.contract.trust import Said, State, Told, Word
from weir_sidecar.core.trust_entry import Entry
from weir_sidecar.edge import stream_client
from weir_sidecar.edge.metrics import Metrics
from weir_sidecar.edge.stream_client import PodIdentity, StreamClient, StreamTasks

AUTHORITY, STRANGER = Authority.root("control plane"), Authority.root("somebody else")
ENTRY = Entry("a.test", 1, "j", State.BYPASSED, Reason.CLIENT_DISTRUSTS_CA, 48, 2, expires_at=9e9, bypasses=1)
LEARNED = Told("b.test", State.BYPASSED, expires_at=9e9)


class Sidecar:
    """What the client serves, and what it did with it; its loop in a thread."""

    def __init__(self, stream, token_file):
        self.stream = stream
        self.entries = [ENTRY]
        self.taken, self.heard, self.said = [], [], []
        self.metrics = Metrics("1")
        tasks = StreamTasks(
            stream=lambda: self.stream,
            hello=lambda: Hello("1.0", "now", "then"),
            health=lambda: Health(3, {"deny": 1}, 0, 0),
            trust=lambda: self.entries,
            take=self.take,
            hear=self.heard.append,
        )
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        pod = PodIdentity("shop", "web-1", str(token_file))
        self.client = self.call(self.make, pod, tasks)

    def make(self, pod, tasks):
        return StreamClient(self.loop, pod, tasks, self.metrics, lambda: 0.01, self.said.append)

    def take(self, config):
        self.taken.append(config)
        return Applied(config.revision, after_restart=("ports",))

    def call(self, what, *args):
        async def called():
            return what(*args)

        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(10)

    def close(self):
        asyncio.run_coroutine_threadsafe(self.client.close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text("first.token\n")
    return path


@pytest.fixture
def server(tmp_path):
    with ControlPlane(tmp_path, socket.create_server(("127.0.0.1", 0)), AUTHORITY) as made:
        yield made


def stream_to(port, authority=AUTHORITY, host="localhost"):
    return Stream(f"{host}:{port}", authority.issued.pem.decode())


@contextmanager
def following(stream, token):
    sidecar = Sidecar(stream, token)
    try:
        yield sidecar
    finally:
        sidecar.close()


@pytest.fixture
def sidecar(server, token):
    with following(stream_to(server.port), token) as it:
        yield it


def line(message):
    return json.dumps(message).encode() + b"\n"


# What is told


def test_it_says_who_it_is_and_what_it_knows(server, sidecar):
    assert server.wait_told("hello") == {"type": "hello", "version": "1.0", "revision": "now", "kernelRevision": "then"}
    (entry,) = server.wait_told("trust")["entries"]
    assert (entry["host"], entry["state"], entry["alert"]) == ("a.test", "bypassed", 48)
    assert server.requests == [("/v1/namespaces/shop/pods/web-1/stream", "Bearer first.token")]
    server.wait(lambda: sidecar.metrics.stream_connected)
    server.wait(lambda: sidecar.said)
    assert sidecar.said == [f"the config stream to localhost:{server.port} is open"]
    assert sidecar.metrics.stream_connections == 1


def test_changes_of_trust_follow(server, sidecar):
    server.wait_told("trust")
    sidecar.entries = [msgspec.structs.replace(ENTRY, state=State.PROBATION, expires_at=None)]
    sidecar.call(sidecar.client.trust_changed)
    sidecar.call(sidecar.client.trust_changed)
    assert [entry["state"] for entry in server.wait_told("trust", 2)["entries"]] == ["probation"]
    sidecar.call(sidecar.client.trust_changed)
    sidecar.entries = [ENTRY, msgspec.structs.replace(ENTRY, host="c.test")]
    assert [entry["host"] for entry in server.wait_told("trust", 3)["entries"]] == ["a.test", "c.test"]


def test_many_entries_come_in_several_messages(server, token):
    with following(None, token) as sidecar:
        sidecar.entries = [msgspec.structs.replace(ENTRY, host=f"{number}.test") for number in range(1500)]
        sidecar.stream = stream_to(server.port)
        server.wait_told("trust", 3)
        assert sum(len(message["entries"]) for message in server.all_told("trust")) == 1500


def test_health_is_told_again_and_again(server, token, monkeypatch):
    monkeypatch.setattr(stream_client, "HEALTH_SECONDS", 0.1)
    with following(stream_to(server.port), token):
        assert server.wait_told("health", 3) == {
            "type": "health", "flowsOpen": 3, "flows": {"deny": 1}, "recordsLost": 0, "heartbeatsMissed": 0
        }  # fmt: skip


# What is heard


def test_a_config_is_taken_and_answered(server, sidecar):
    server.wait_told("hello")
    config = SidecarConfig(revision="next", default_action=Action.DENY)
    server.send(NewConfig(config))
    assert server.wait_told("applied") == {
        "type": "applied",
        "revision": "next",
        "problem": None,
        "afterRestart": ["ports"],
    }
    assert sidecar.taken == [config]


@pytest.mark.parametrize(
    "change", [{"defaultAction": "Explode"}, {"unheardOf": 1}, {"version": "weir.dev/sidecar/v9"}, {"ports": 5}]
)
def test_a_config_that_cannot_be_read_is_answered_and_nothing_else_happens(server, sidecar, change):
    server.wait_told("hello")
    config = msgspec.to_builtins(SidecarConfig(revision="bad")) | change
    server.send(line({"type": "config", "config": config}))
    applied = server.wait_told("applied")
    assert applied["revision"] == "bad"
    assert applied["problem"]
    assert sidecar.taken == []
    server.send(NewConfig(SidecarConfig(revision="good")))
    server.wait_told("applied", 2)
    assert len(server.requests) == 1


def test_what_people_said_and_pods_learned_is_heard(server, sidecar):
    server.greeting = []
    server.wait_told("hello")
    message = Exceptions((Said("a.test", Word.PIN),), (LEARNED,))
    server.send(b"\n")
    server.send(message)
    server.wait(lambda: sidecar.heard)
    assert sidecar.heard == [message]


def test_a_message_of_tomorrow_is_passed_over(server, sidecar):
    server.wait_told("hello")
    server.send(line({"type": "tomorrow", "config": {}}) + line({"type": "exceptions", "learned": [{"host": ""}]}))
    server.send(NewConfig(SidecarConfig(revision="good")))
    server.wait_told("applied")
    assert len(sidecar.said) == 3  # open, and one for each message
    assert sidecar.heard == []


def test_a_config_as_large_as_may_be(server, sidecar):
    server.wait_told("hello")
    config = SidecarConfig(revision="big", stream=Stream("s:1", "x" * (MAX_LINE - 4096)))
    server.send(NewConfig(config))
    server.wait_told("applied")
    assert sidecar.taken == [config]


@pytest.mark.parametrize(
    "garbage", [b"{\n", b"\xff\xfe\n", b"[" * 5000 + b"\n", b"x" * (MAX_LINE + 9), b'{"type":7}\n']
)
def test_garbage_ends_the_connection_and_another_is_made(server, sidecar, garbage):
    server.wait_told("hello")
    with contextlib.suppress(ConnectionError):
        server.send(garbage)
    server.wait_told("hello", 2)
    assert sidecar.taken == []


# Ends, and beginnings


def test_it_connects_again_with_the_token_of_the_day(server, sidecar, token):
    server.wait_told("hello")
    token.write_text("second.token")
    server.cut()
    server.wait_told("hello", 2)
    assert [authorization for _, authorization in server.requests] == ["Bearer first.token", "Bearer second.token"]
    server.wait_told("trust", 2)
    server.wait(lambda: sidecar.metrics.stream_connections == 2)
    server.wait(lambda: len(sidecar.said) == 3)
    assert ["no config stream" in text for text in sidecar.said] == [False, True, False]


def test_a_clean_end_is_followed_by_a_new_beginning(server, sidecar):
    server.wait_told("hello")
    server.wait(lambda: server.connected)
    server.end()
    server.wait_told("hello", 2)
    assert "it ended the stream" in sidecar.said[1]


def test_a_server_that_comes_later_is_found_and_attempts_are_not_told_each(tmp_path, token):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    with following(stream_to(port), token) as sidecar:
        while not sidecar.said:
            threading.Event().wait(0.01)
        threading.Event().wait(0.1)
        assert len(sidecar.said) == 1
        assert "it cannot be reached: 127.0.0.1 port" in sidecar.said[0]
        assert "Connection refused" in sidecar.said[0]
        with ControlPlane(tmp_path, socket.create_server(("127.0.0.1", port)), AUTHORITY) as server:
            server.wait(lambda: sidecar.metrics.stream_connected)
            server.wait(lambda: len(sidecar.said) == 2)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_told_once_and_not_asked_again_soon(server, token, status, monkeypatch):
    pauses = []
    pause = StreamClient._pause
    monkeypatch.setattr(StreamClient, "_pause", lambda self, end: pauses.append(pause(self, end)) or 0.01)
    server.refuse = status
    with following(stream_to(server.port), token) as sidecar:
        server.wait(lambda: len(server.requests) >= 3)
        server.wait(lambda: sidecar.said)
        (said,) = sidecar.said
        assert said.startswith(f"no config stream to localhost:{server.port}: it refuses this pod: {status} ")
        assert "the test refuses" in said
        assert min(pauses) >= 30
        assert not sidecar.metrics.stream_connected


@pytest.mark.parametrize("status", [429, 503, 500, 302])
def test_who_is_asked_to_come_later_does(server, token, status):
    server.refuse = status
    with following(stream_to(server.port), token) as sidecar:
        server.wait(lambda: len(server.requests) >= 2)
        server.refuse = None
        server.wait_told("hello")
        assert "it asks to come later" in sidecar.said[0]


def test_a_stranger_is_told_nothing(server, token):
    with following(stream_to(server.port, STRANGER), token) as sidecar:
        server.wait(lambda: sidecar.said)
        assert "it is not who it should be: its certificate does not verify (X509_V_ERR" in sidecar.said[0]
    assert server.requests == []


def test_one_of_the_house_with_another_name_is_told_nothing(tmp_path, token):
    with (
        ControlPlane(tmp_path, socket.create_server(("127.0.0.1", 0)), AUTHORITY, "other.example") as server,
        following(stream_to(server.port), token) as sidecar,
    ):
        server.wait(lambda: sidecar.said)
        assert "its certificate does not name localhost" in sidecar.said[0]
        assert server.requests == []


@pytest.mark.parametrize("content", [None, "", "two words", "new\r\nline"])
def test_without_a_token_nobody_is_asked(server, token, content):
    token.unlink() if content is None else token.write_text(content)
    with following(stream_to(server.port), token) as sidecar:
        server.wait(lambda: sidecar.said)
        assert "there is no token for it" in sidecar.said[0]
        assert server.requests == []
        token.write_text("late.token")
        server.wait_told("hello")


@pytest.mark.parametrize("server", ["nowhere.invalid:443", "localhost", "localhost:99999", "ärger.test:443", ":1"])
def test_a_server_that_cannot_be_found_harms_nothing(token, server):
    with following(Stream(server, AUTHORITY.issued.pem.decode()), token) as sidecar:
        while not sidecar.said:
            threading.Event().wait(0.01)
        assert "it cannot be reached" in sidecar.said[0]


def test_authorities_that_are_none_harm_nothing(token):
    with following(Stream("localhost:1", "no PEM"), token) as sidecar:
        while not sidecar.said:
            threading.Event().wait(0.01)
        assert "authoritiesPem cannot be read" in sidecar.said[0]


def test_who_is_silent_is_left(server, token, monkeypatch):
    monkeypatch.setattr(stream_client, "SILENCE_SECONDS", 0.2)
    with following(stream_to(server.port), token) as sidecar:
        server.wait_told("hello", 3)
        assert "the server was silent" in sidecar.said[1]


def test_pings_are_no_silence(server, token, monkeypatch):
    monkeypatch.setattr(stream_client, "SILENCE_SECONDS", 0.4)
    with following(stream_to(server.port), token):
        server.wait_told("hello")
        for _ in range(8):
            server.send(b"\n")
            threading.Event().wait(0.1)
        assert len(server.requests) == 1


def test_it_follows_the_config_to_another_server(tmp_path, server, sidecar):
    server.wait_told("hello")
    with ControlPlane(tmp_path, socket.create_server(("127.0.0.1", 0)), AUTHORITY) as other:
        sidecar.stream = stream_to(other.port)
        server.send(b"\n")
        other.wait_told("hello")
        server.wait(lambda: not server.connected)


def test_a_fault_of_ours_is_told_and_survived(server, token, monkeypatch):
    monkeypatch.setattr(StreamClient, "_pause", lambda *_: 0.01)
    with following(None, token) as sidecar:
        sidecar.entries = None
        sidecar.stream = stream_to(server.port)
        server.wait(lambda: any("the client failed: TypeError" in text for text in sidecar.said))
        sidecar.entries = []
        server.wait_told("trust")


def test_a_server_that_reads_nothing_is_left(token, monkeypatch):
    """Nothing piles up for it without bound, and the loop goes on."""
    monkeypatch.setattr("weir_sidecar.edge.stream_link.BACKLOG", 1 << 16)
    # A server that accepts and never answers the handshake: bounded in time instead.
    monkeypatch.setattr("weir_sidecar.edge.stream_link.CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf, following(stream_to(deaf.getsockname()[1]), token) as sidecar:
        while not sidecar.said:
            threading.Event().wait(0.01)
        assert "the TLS handshake takes too long" in sidecar.said[0]


@pytest.mark.parametrize("name", ["", "a/b", "a\r\nb", "UPPER", "-a", "a" * 300])
def test_names_that_kubernetes_does_not_give_are_refused(name):
    with pytest.raises(ValueError, match="not the name"):
        PodIdentity("shop", name, "token")
