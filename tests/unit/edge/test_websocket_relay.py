"""WebSockets through the relays: the same bytes as without, and what records tell of them."""

import asyncio
from base64 import b64decode

import aiohttp
import pytest
from aiohttp import web
from h2.events import DataReceived
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from lab.edge import Surroundings
from lab.flow_bench import flows, in_front, weir_client
from lab.http1 import FLOW, RelayBench
from lab.http2_pair import Pair, forever
from lab.loopback import Wire, no_cycles, run
from samples.websocket_cases import CASES, TEXT, Case, Frame, close, compressed
from weir_sidecar.contract.config import Action, Match, Rule, SidecarConfig
from weir_sidecar.contract.http import Credential, RequestRule
from weir_sidecar.contract.request import HTTPVersion, Opcode, WebSocketSender
from weir_sidecar.contract.request_log import RequestLog, WebSocketLog
from weir_sidecar.edge.requests import FlowRequests

ASK = (
    b"GET /chat HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n%b\r\n"
MESSAGES = SidecarConfig(logging=RequestLog(web_socket=WebSocketLog(messages=100)))


def switch(extensions=b""):
    return SWITCH % (b"Sec-WebSocket-Extensions: %b\r\n" % extensions if extensions else b"")


@pytest.mark.parametrize("config", [None, MESSAGES], ids=["counted", "told"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_directions_pass_as_they_are(case: Case, config):
    relay = RelayBench(config)
    up, down = case.bytes(client=True), case.bytes(client=False)
    assert relay.client(ASK) == ASK
    # The server's first bytes come with its head, and the client's in two parts.
    assert relay.upstream(switch(case.extensions) + down) == switch(case.extensions) + down
    assert relay.client(up[:5]) + relay.client(up[5:]) == up
    (record,) = relay.close()
    frames = record.websocket
    assert (frames.client.malformed, frames.server.malformed) == (case.malformed,) * 2
    assert (frames.client.close_code, frames.server.close_code) == (case.close_code,) * 2
    assert record.status == 101
    if config is not None:
        told = sum(not one.truncated for one in frames.messages)
        cut = sum(len(payload) > 4096 for _, payload in case.messages)
        assert told + 2 * cut == 2 * len(case.messages)


@given(st.binary(max_size=200), st.binary(max_size=200), st.lists(st.integers(1, 30), min_size=1, max_size=4))
@settings(max_examples=50)
def test_whatever_follows_passes_as_it_is(up, down, sizes):
    relay = RelayBench(MESSAGES)
    assert relay.client(ASK) == ASK
    got = relay.upstream(switch(b"permessage-deflate"))
    for size in sizes:
        assert relay.client(up[:size]) == up[:size]
        got += relay.upstream(down[:size])
        up, sent, down = up[size:], down[:size], down[size:]
        assert got.endswith(sent)


def test_what_the_client_sent_too_early_is_read_too():
    relay = RelayBench(MESSAGES)
    early = Case("", (Frame(TEXT, b"early"),)).bytes(client=True)
    assert relay.client(ASK + early) == ASK
    relay.upstream(switch())
    assert relay.to_upstream() == early
    (record,) = relay.close()
    assert [one.content for one in record.websocket.messages] == ["early"]


def test_another_protocol_is_not_read():
    relay = RelayBench()
    relay.client(ASK.replace(b"websocket", b"echo"))
    relay.upstream(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n")
    assert relay.up.on_bytes is None
    (record,) = relay.close()
    assert record.websocket is UNSET


def test_messages_to_which_a_credential_belongs_are_not_told(tmp_path):
    (tmp_path / "key").write_text("s3cret")
    rule = RequestRule("r", credential=Credential("authorization", str(tmp_path / "key")))
    rules = (Rule("web", Match(hosts=("a.test",)), Action.INTERCEPT, http=(rule,)),)
    relay = RelayBench(SidecarConfig(rules=rules, logging=MESSAGES.logging), rule="web")
    assert b"s3cret" in relay.client(ASK)
    relay.upstream(switch() + Case("", (Frame(TEXT, b"you are s3cret"),)).bytes(client=False))
    (record,) = relay.close()
    assert (record.websocket.messages, record.websocket.server.text) == (UNSET, 1)


CONNECT = (
    (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/chat"), (":authority", "a.test"),
)  # fmt: skip


def http2(size=65536):
    """An HTTP/2 connection of which all portions have this size, and its records."""
    surroundings = Surroundings(MESSAGES)
    flow = FlowRequests(surroundings.context, "f1", FLOW, None)
    flow.version = HTTPVersion.HTTP2
    return Pair(sizes=forever(size), flow=flow), surroundings.requests


@pytest.mark.parametrize("size", [65536, 7])
def test_over_http2_by_extended_connect(size):
    """RFC 8441; its DATA padded and in any portions."""
    pair, records = http2(size)
    pair.client.send_headers(1, CONNECT)
    pair.run()
    pair.server.send_headers(1, ((":status", "200"), ("sec-websocket-extensions", "permessage-deflate")))
    frames = (compressed(b"hello " * 30), Frame(TEXT, b"plain"), close(1000, b"done"))
    up, down = Case("", frames).bytes(client=True), Case("", frames).bytes(client=False)
    pair.run()
    pair.client.send_data(1, up[:20], pad_length=30)
    pair.client.send_data(1, up[20:], end_stream=True)
    pair.server.send_data(1, down, pad_length=3, end_stream=True)
    pair.run()
    assert b"".join(event.data for event in pair.server_events if isinstance(event, DataReceived)) == up
    assert b"".join(event.data for event in pair.client_events if isinstance(event, DataReceived)) == down
    (record,) = records
    told = record.websocket
    assert told.client == told.server
    assert (told.client.text, told.client.malformed, told.client.close_code) == (2, 0, 1000)
    assert sorted((one.sender, one.content) for one in told.messages) == sorted(
        (side, text) for side in WebSocketSender for text in ("hello " * 30, "plain", "done")
    )


def test_an_extended_connect_that_is_refused_is_none():
    pair, records = http2()
    pair.client.send_headers(1, CONNECT)
    pair.run()
    pair.server.send_headers(1, ((":status", "404"),))
    pair.server.send_data(1, b"\x81\x05not a frame", end_stream=True)
    pair.client.end_stream(1)
    pair.run()
    assert [(one.status, one.websocket) for one in records] == [(404, UNSET)]


async def chat(wire: Wire) -> None:
    """A server that agrees to a WebSocket, and sends back what comes."""
    if wire.tls is not None:
        await wire.handshake()
    await wire.recv()
    await wire.send(switch(b"permessage-deflate"))
    while data := await wire.recv():
        await wire.send(data)
    wire.end()


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_every_case_through_real_sockets(tls):
    async def main():
        options = {} if tls else {"origin": None}
        async with flows(chat, config=MESSAGES, **options) as bench:
            wire, flow = bench.flow(weir_client() if tls else None)
            if tls:
                await wire.handshake()
            await wire.send(ASK)
            assert await wire.recv() == switch(b"permessage-deflate")
            for case in CASES:
                data = case.bytes(client=True)
                got = b""
                sending = asyncio.ensure_future(wire.send(data))
                while len(got) < len(data):
                    got += await wire.recv()
                await sending
                assert got == data, case.name
            wire.close()
            await flow
            (record,) = bench.surroundings.requests
            assert record.websocket.client.text == sum(frame.opcode == TEXT for case in CASES for frame in case.frames)

    with no_cycles():
        run(main)


def test_real_peers_that_compress():
    """Client and server of aiohttp: each says what it got, and the record says the same."""
    said = [("text", "hello " * 50), ("text", "hello " * 50), ("bytes", bytes(range(256))), ("text", "grüße")]

    async def answer(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await (socket.send_str if isinstance(message.data, str) else socket.send_bytes)(message.data)
        return socket

    async def main():
        application = web.Application()
        application.router.add_get("/chat", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with flows(config=MESSAGES) as bench, in_front(bench, runner.addresses[0]) as port:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"http://127.0.0.1:{port}/chat", compress=15) as socket,
            ):
                for kind, message in said:
                    await (socket.send_str if kind == "text" else socket.send_bytes)(message)
                    assert (await socket.receive()).data == message
            await bench.ended()
            (record,) = bench.surroundings.requests
        await runner.cleanup()
        return record.websocket

    told = run(main)
    assert (told.client.text, told.client.binary, told.server.text, told.server.binary) == (3, 1, 3, 1)
    assert (told.client.malformed, told.server.malformed, told.client.close_code) == (0, 0, 1000)
    for side in WebSocketSender:
        mine = [one for one in told.messages if one.sender is side and one.opcode in (Opcode.TEXT, Opcode.BINARY)]
        assert all(one.compressed for one in mine)
        assert [b64decode(one.content) if one.base64 else one.content for one in mine] == [data for _, data in said]
