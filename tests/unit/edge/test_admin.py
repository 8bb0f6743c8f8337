"""The admin endpoint over real sockets: who may do what at which door, and that neither door can be jammed."""

import asyncio
import json
import os
import socket
import stat
import traceback
from contextlib import closing, contextmanager

import pytest

from weir_sidecar.contract.flow import Client, Decision, FlowRecord, Protocol, Reason
from weir_sidecar.contract.trust import Word
from weir_sidecar.core.trust_change import TrustChange
from weir_sidecar.edge import admin as module
from weir_sidecar.edge.admin import (
    Admin,
    AdminRoutes,
    ControlSocketError,
    DoorKind,
    open_admin_socket,
    open_control_socket,
    open_probe_sockets,
)
from weir_sidecar.edge.metrics import Metrics, RecordSinkKind
from weir_sidecar.edge.privileges import drop
from weir_sidecar.edge.records import RecordSink

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another UID")


def record(number):
    return FlowRecord(
        time="2026-01-01T00:00:00Z", id=str(number), client=Client(), protocol=Protocol.DNS, host="example.com",
        sni=None, address="192.0.2.1", port=53, alpn=None, decision=Decision.PASSTHROUGH, reason=Reason.DEFAULT,
        rule=None, tls=None, bytes_up=1, bytes_down=2, duration_ms=0.5,
    )  # fmt: skip


class Endpoint:
    """Both doors in one loop, and a client that speaks bytes."""

    def __init__(self, loop, directory):
        self.loop = loop
        self.ready = False
        self.changes = []
        self.refusal = None
        self.metrics = Metrics("1")
        self.records = RecordSink(loop, self.metrics, print)
        routes = AdminRoutes(
            ready=lambda: self.ready,
            metrics=self.metrics.render,
            config=lambda: b'{"generation":1}',
            trust=lambda: b"[]",
            change=self.change,
            captured=lambda: self.metrics.captured,
        )
        self.admin = Admin(loop, routes, self.records, {0, os.getuid()})
        self.tcp = open_admin_socket(0)
        self.control = open_control_socket(directory)
        self.probe, *others = open_probe_sockets(0)
        for other in others:
            other.close()
        self.addresses = {
            "tcp": self.tcp.getsockname(),
            "probe": self.probe.getsockname(),
            "control": f"/proc/self/fd/{directory}/control.sock",
        }
        self.admin.serve(self.tcp, DoorKind.POD)
        self.admin.serve(self.control, DoorKind.CONTROL)
        self.admin.serve(self.probe, DoorKind.PROBE)

    def change(self, change):
        self.changes.append(change)
        return self.refusal

    def connect(self, door):
        client = socket.socket(socket.AF_UNIX if door == "control" else socket.AF_INET)
        client.connect(self.addresses[door])
        client.setblocking(False)
        return client

    def send(self, door, data):
        """Send bytes and read to the end of the answer."""

        async def talk(client):
            await self.loop.sock_sendall(client, data)
            return await self.read(client)

        with closing(self.connect(door)) as client:
            return self.loop.run_until_complete(asyncio.wait_for(talk(client), 10))

    async def read(self, client, until=None):
        got = b""
        while chunk := await self.loop.sock_recv(client, 65536):
            got += chunk
            if until is not None and until in got:
                break
        return got

    def ask(self, door, method, path, body=b"", host="localhost"):
        """Status and body of one request."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        head, _, content = self.send(door, head.encode() + body).partition(b"\r\n\r\n")
        return int(head.split()[1]), content


@contextmanager
def serving(tmp_path, new_loop=asyncio.new_event_loop):
    loop = new_loop()
    directory = os.open(tmp_path, os.O_PATH)
    endpoint = Endpoint(loop, directory)
    try:
        yield endpoint
    finally:
        endpoint.admin.close()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        os.close(directory)


@pytest.fixture
def endpoint(tmp_path):
    with serving(tmp_path, asyncio.new_event_loop) as it:
        yield it


@pytest.mark.parametrize("door", ["tcp", "control"])
def test_the_pages_to_look_at(endpoint, door):
    assert endpoint.ask(door, "GET", "/healthz") == (200, b"ok\n")
    assert endpoint.ask(door, "GET", "/readyz") == (503, b'{"error":"not ready"}')
    endpoint.ready = True
    assert endpoint.ask(door, "GET", "/readyz") == (200, b"ok\n")
    endpoint.metrics.captured = False
    assert endpoint.ask(door, "GET", "/readyz") == (200, b"ok, but not captured: this pod has no rules\n")
    assert b"weir_captured 0\n" in endpoint.ask(door, "GET", "/metrics")[1]
    assert b"weir_flows_open 0" in endpoint.ask(door, "GET", "/metrics")[1]
    assert endpoint.ask(door, "GET", "/config") == (200, b'{"generation":1}')
    assert endpoint.ask(door, "GET", "/trust") == (200, b"[]")
    status, body = endpoint.ask(door, "GET", "/nothing")
    assert status == 404
    assert b"/healthz" in body


@pytest.mark.parametrize("path", ["/trust/pin", "/trust/approve", "/config", "/healthz"])
def test_nothing_can_be_changed_from_the_pod(endpoint, path):
    assert endpoint.ask("tcp", "POST", path, b'{"host":"example.com"}')[0] == 405
    assert endpoint.changes == []


def test_flow_records_are_not_for_the_pod(endpoint):
    assert endpoint.ask("tcp", "GET", "/flows")[0] == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:15802", 200), ("127.0.0.1", 200), ("[::1]:1", 200), ("evil.example", 403), ("127.0.0.1.evil", 403)],
)
def test_a_rebound_name_gets_nothing(tmp_path, host, status):
    with serving(tmp_path) as it:
        assert it.ask("tcp", "GET", "/config", host=host)[0] == status


def test_changes_through_the_control_socket(endpoint):
    body = json.dumps({"host": "example.com", "uid": 5, "ja4": "t13d"}).encode()
    for verb in ("approve", "pin", "forget"):
        assert endpoint.ask("control", "POST", f"/trust/{verb}", body) == (200, b"{}")
    assert endpoint.changes == [TrustChange(word, "example.com", 5, "t13d") for word in Word]
    endpoint.refusal = "nothing is known of example.com"
    assert endpoint.ask("control", "POST", "/trust/forget", b'{"host":"example.com"}') == (
        409, b'{"error":"nothing is known of example.com"}',
    )  # fmt: skip
    assert endpoint.changes[-1] == TrustChange(Word.FORGET, "example.com")


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/trust/pin", b"{", 400, "JSON"),
        ("/trust/pin", b"{}", 400, "host"),
        ("/trust/pin", b'{"host":""}', 400, "host"),
        ("/trust/pin", b'{"host":"a","uid":"5"}', 400, "uid"),
        ("/trust/pin", b'{"host":"a","uid":-1}', 400, "uid"),
        ("/trust/pin", b'{"host":"a","user":5}', 400, "user"),
        ("/trust/delete", b'{"host":"a"}', 404, "/trust/approve, /trust/pin, /trust/forget"),
        ("/pin", b'{"host":"a"}', 404, "/pin"),
    ],
)
def test_changes_that_are_not_understood(tmp_path, path, body, status, words):
    with serving(tmp_path) as it:
        found, answer = it.ask("control", "POST", path, body)
        assert found == status
        assert words in json.loads(answer)["error"]
        assert it.changes == []


def test_the_last_records(endpoint):
    for number in range(5):
        endpoint.records(record(number))
    status, body = endpoint.ask("control", "GET", "/flows?last=2")
    assert (status, [json.loads(line)["id"] for line in body.splitlines()]) == (200, ["3", "4"])
    assert len(endpoint.ask("control", "GET", "/flows")[1].splitlines()) == 5
    assert endpoint.ask("control", "GET", "/flows?last=-1")[0] == 400


def test_following_misses_none_tells_none_twice_and_ends_with_the_client(endpoint):
    async def follow():
        client = endpoint.connect("control")
        with closing(client):
            await endpoint.loop.sock_sendall(client, b"GET /flows?last=2&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            ticks = asyncio.ensure_future(keep_recording())
            got = await endpoint.read(client, until=b'"id":"60"')
            await ticks
        await asyncio.gather(*endpoint.admin._doors[1].tasks)
        assert endpoint.records._followers == []
        return got

    async def keep_recording():
        for number in range(3, 61):
            endpoint.records(record(number))
            await asyncio.sleep(0)

    for number in range(3):
        endpoint.records(record(number))
    got = endpoint.loop.run_until_complete(asyncio.wait_for(follow(), 10))
    head, _, lines = got.partition(b"\r\n\r\n")
    assert b"Content-Length" not in head
    found = [int(json.loads(line)["id"]) for line in lines.splitlines()]
    assert found == list(range(found[0], 61))


def test_a_follower_that_does_not_read_loses_records_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FOLLOWER_BACKLOG", 5000)
    with serving(tmp_path) as it, closing(it.connect("control")) as client:
        client.send(b"GET /flows?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        it.loop.run_until_complete(asyncio.sleep(0.05))
        for number in range(3000):
            it.records(record(number))
        it.loop.run_until_complete(asyncio.sleep(0))
        assert 0 < it.metrics.records_lost[RecordSinkKind.FOLLOWER] < 3000
        assert it.ask("control", "GET", "/healthz")[0] == 200


def test_a_request_that_never_ends_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    with serving(tmp_path) as it:
        assert it.send("tcp", b"GET / HTT") == b""


def test_an_answer_reaches_a_client_that_sent_too_much(endpoint):
    assert b"413" in endpoint.send("tcp", b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n")
    assert b"431" in endpoint.send("control", b"x" * 200_000)


def test_a_full_door_turns_away_and_the_other_is_open(tmp_path):
    with serving(tmp_path) as it:
        idle = [it.connect("tcp") for _ in range(module.MAX_CONNECTIONS)]
        it.loop.run_until_complete(asyncio.sleep(0.05))
        with closing(it.connect("tcp")) as late:
            got = it.loop.run_until_complete(asyncio.wait_for(it.read(late), 10))
            assert b"503 Service Unavailable" in got
        assert it.ask("control", "GET", "/healthz")[0] == 200
        for client in idle:
            client.close()
        it.loop.run_until_complete(asyncio.sleep(0.05))
        assert it.ask("tcp", "GET", "/healthz")[0] == 200


def test_the_control_socket_is_private_and_replaced_when_its_sidecar_is_gone(tmp_path):
    with serving(tmp_path):
        found = (tmp_path / "control.sock").stat()
        assert stat.S_IMODE(found.st_mode) == 0o600
        directory = os.open(tmp_path, os.O_PATH)
        with pytest.raises(ControlSocketError, match="another sidecar serves"):
            open_control_socket(directory)
    open_control_socket(directory).close()
    os.close(directory)


@as_root
def test_another_uid_may_not_use_the_control_socket_even_where_it_can_be_reached(tmp_path):
    with serving(tmp_path) as it:
        tmp_path.chmod(0o711)
        (tmp_path / "control.sock").chmod(0o666)
        os.seteuid(45678)  # SO_PEERCRED is what the peer was when it connected
        try:
            client = it.connect("control")
        finally:
            os.seteuid(0)
        with closing(client):
            client.send(b"GET /config HTTP/1.1\r\nHost: x\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            got = it.loop.run_until_complete(asyncio.wait_for(it.read(client), 10))
        assert b"403 Forbidden" in got
        assert b"uid 45678 may not" in got


@as_root
def test_the_control_socket_is_made_after_the_drop_and_belongs_to_the_proxy(tmp_path):
    os.chown(tmp_path, 15801, 15802)
    directory = os.open(tmp_path, os.O_PATH)
    child = os.fork()
    if child == 0:
        try:
            drop(15801, 15802)
            open_control_socket(directory).close()
            open_control_socket(directory)  # replaces what is left
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(directory)
    assert os.waitpid(child, 0)[1] == 0
    found = (tmp_path / "control.sock").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (15801, 15802, 0o600)


# The probe's door


@pytest.mark.parametrize("host", ["10.1.2.3:15804", "[fd00::1]:15804", "anything.example"])
def test_the_probe_tells_health_and_metrics_to_anybody(endpoint, host):
    endpoint.ready = True
    assert endpoint.ask("probe", "GET", "/healthz", host=host) == (200, b"ok\n")
    assert endpoint.ask("probe", "GET", "/readyz", host=host) == (200, b"ok\n")
    assert b"weir_flows_open 0" in endpoint.ask("probe", "GET", "/metrics", host=host)[1]


@pytest.mark.parametrize("path", ["/config", "/trust", "/flows", "/"])
def test_the_probe_tells_nothing_else(endpoint, path):
    status, body = endpoint.ask("probe", "GET", path)
    assert status == 404
    assert b"there are /healthz, /readyz, /metrics" in body


def test_the_probe_changes_nothing(endpoint):
    assert endpoint.ask("probe", "POST", "/trust/pin", b'{"host":"a.test"}')[0] == 405
    assert endpoint.changes == []


def test_strangers_who_say_nothing_do_not_keep_the_kubelet_out(endpoint, monkeypatch):
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 4)
    idle = [endpoint.connect("probe") for _ in range(12)]
    try:
        assert endpoint.ask("probe", "GET", "/healthz") == (200, b"ok\n")
        assert endpoint.loop.run_until_complete(asyncio.wait_for(endpoint.read(idle[0]), 5)) == b""
    finally:
        for client in idle:
            client.close()


def test_the_probe_listens_in_both_families():
    sockets = open_probe_sockets(0)
    try:
        assert sockets[0].family == socket.AF_INET
        assert all(s.getsockname()[0] in ("0.0.0.0", "::") for s in sockets)
    finally:
        for one in sockets:
            one.close()


def test_a_probe_port_that_is_taken_leaves_nothing_open():
    with socket.create_server(("0.0.0.0", 0)) as taken, pytest.raises(OSError, match="in use"):
        open_probe_sockets(taken.getsockname()[1])
