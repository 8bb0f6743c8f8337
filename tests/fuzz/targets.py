"""What is fuzzed. A target takes any bytes; it may raise nothing, and take no longer than `LIMIT`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time

from weir_sidecar.contract.config import ConfigError, SidecarConfig, decode, encode
from weir_sidecar.contract.request_log import WebSocketLog
from weir_sidecar.core.captured import Room
from weir_sidecar.core.websocket import Messages, WebSocket
from weir_sidecar.wire.clienthello import MAX_BYTES, ClientHello, MalformedClientHello, NeedMore, parse
from weir_sidecar.wire.dns import (
    HEADER_SIZE,
    REFUSED,
    MalformedDNS,
    addresses,
    ages,
    answers,
    parse_query,
    records,
    refusal,
)
from weir_sidecar.wire.dns_edit import strip
from weir_sidecar.wire.ja4 import ja4
from weir_sidecar.wire.sniff import MAX_HEAD, Kind, http1_host, sniff
from weir_sidecar.wire.websocket import extensions

LIMIT = 0.05  # seconds of CPU for one input

QUERY = bytes.fromhex("123401000001000000000000 0377777707 6578616d706c65 03636f6d 00 0041 0001")
"""HTTPS? www.example.com"""
ANSWER = (
    bytes.fromhex("123481800001000200000000")
    + QUERY[12:]
    + bytes.fromhex("c00c 0041 0001 0000003c 0014 0001 00 0001 0006 026833026832 0005 0003 0a0b0c")  # alpn=h3,h2 ech=…
    + bytes.fromhex("c00c 0001 0001 0000003c 0004 5db8d822")
)

type Target = Callable[[bytes], None]


class SlowInputError(AssertionError):
    """An input took longer than `LIMIT`, three times."""


def within_limit(target: Target, clock: Callable[[], float] = process_time) -> Target:
    """The target, with its time taken; a slow input is tried again, since the machine may have been busy."""

    def timed(data: bytes) -> None:
        taken = []
        for _ in range(3):
            start = clock()
            target(data)
            taken.append(clock() - start)
            if taken[-1] <= LIMIT:
                return
        raise SlowInputError(f"{len(data)} bytes took {min(taken):.3f} s; {LIMIT} s is the limit")

    return timed


def client_hello(data: bytes) -> None:
    try:
        answer = parse(data)
    except MalformedClientHello:
        return
    if isinstance(answer, NeedMore):
        assert len(data) < answer.total <= MAX_BYTES
        return
    assert isinstance(answer, ClientHello)
    assert parse(data + b"more") == answer
    assert len(ja4(answer)) == len("t13d1516h2_8daaf6152771_e5627efa2ab1")


def first_bytes(data: bytes) -> None:
    kind = sniff(data)
    assert kind is Kind.NEED_MORE or sniff(data + b" /") is kind
    answer = http1_host(data)
    assert not isinstance(answer, NeedMore) or len(data) < answer.total <= MAX_HEAD


def dns_query(data: bytes) -> None:
    try:
        question = parse_query(data)
    except MalformedDNS:
        return
    assert answers(refusal(data, question, REFUSED), data, question)


def dns_answer(data: bytes) -> None:
    """An answer to `QUERY`, as the forwarder reads one from a server: some servers leave the question out."""
    question = parse_query(QUERY)
    if not answers(data, QUERY, question):
        return
    end = question.end if data[4:6] == b"\0\1" else HEADER_SIZE
    try:
        if end == question.end:
            addresses(data, question)
            ages(data, question)
        stripped = strip(data, end, ech=True, h3=True)
    except MalformedDNS:
        return
    assert all(record.end <= len(stripped) for record in records(stripped, end))


def config(data: bytes) -> None:
    try:
        read = decode(data)
    except ConfigError:
        return
    assert decode(encode(read)) == read


def websocket(data: bytes) -> None:
    """Both sides at once, compressed messages among them; what was kept is let go."""
    room = Room(1 << 20)
    messages = Messages(WebSocketLog(messages=10, max_bytes=100), room, lambda: 0.0, 0.0)
    socket = WebSocket(extensions(b"permessage-deflate"), messages)
    socket.from_client(data, 0, len(data))
    socket.from_server(data, 0, len(data))
    told = socket.record().messages
    assert isinstance(told, tuple)
    assert all(len(one.content) <= 136 for one in told if isinstance(one.content, str))
    assert room.left == 1 << 20


TARGETS: dict[str, Target] = {
    target.__name__: target for target in (client_hello, first_bytes, dns_query, dns_answer, config, websocket)
}


def seeds(name: str) -> Iterator[bytes]:
    """Valid inputs to start from."""
    hellos = Path(__file__).parents[1] / "unit" / "wire" / "hellos"
    match name:
        case "client_hello":
            yield from (path.read_bytes() for path in sorted(hellos.glob("*.bin")))
        case "first_bytes":
            yield b"GET http://example.com/ HTTP/1.1\r\nHost: example.com:80\r\n\r\n"
            yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        case "dns_query":
            yield QUERY
            yield QUERY[:11] + b"\x01" + QUERY[12:] + bytes.fromhex("0000290200000080000000")
        case "dns_answer":
            yield ANSWER
        case "websocket":
            yield bytes.fromhex("818537fa213d7f9f4d5158 8900 8002 4c4f 8a00 8803 03e8 21")
            yield bytes.fromhex("c107f248cdc9c90700 410280fe 8000 827e0010") + bytes(16)
        case "config":
            yield encode(SidecarConfig())
            yield json.dumps({"rules": [{"name": "a", "match": {"hosts": ["*"]}, "action": "Deny"}]}).encode()
