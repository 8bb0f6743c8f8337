"""HTTP/1.1 through a whole flow with real sockets, in the clear and decrypted."""

import asyncio
import hashlib

import pytest

from lab.flow_bench import flows, weir_client
from lab.loopback import Wire, no_cycles, open_files, run
from weir_sidecar.contract.config import Action, Match, Rule, SidecarConfig
from weir_sidecar.contract.http import PathMatch, RequestAction, RequestMatch, RequestRule
from weir_sidecar.contract.request import RequestError
from weir_sidecar.core.policy import Policy

GET = b"GET /%b HTTP/1.1\r\nHost: a.test\r\n\r\n"
BODY = b"x" * 300_000
LARGE = b"".join(hashlib.sha256(at.to_bytes(4)).digest() for at in range(50_000))
CHUNKS = b"%x\r\n%b\r\n1;ext=1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(LARGE), LARGE)
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n"
RULES = (
    RequestRule("no", RequestMatch(paths=(PathMatch("/no"),)), RequestAction.DENY, body="no"),
    RequestRule("cut", RequestMatch(paths=(PathMatch("/cut"),)), abort=True),
    RequestRule("wait", RequestMatch(paths=(PathMatch("/wait"),)), delay=0.05),
)
CONFIG = SidecarConfig(rules=(Rule("web", Match(), Action.INTERCEPT, http=RULES),))


async def origin(wire: Wire) -> None:
    """Answers each request with a body; /last ends the connection after it, /ws goes over to echo."""
    if wire.tls is not None:
        await wire.handshake()
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = await wire.recv()
            if not more:
                wire.end()
                return
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        if b"Upgrade" in head:
            await wire.send(SWITCHING)
            while data := await wire.recv():
                await wire.send(data)
            wire.end()
            return
        if b"/until-end" in head:
            await wire.send(b"HTTP/1.1 200 OK\r\n\r\n" + LARGE)
            wire.end()
            return
        if head.startswith(b"PUT"):
            while len(data) < len(LARGE):
                data += await wire.recv(1 << 18)
            digest, data = hashlib.sha256(data[: len(LARGE)]).hexdigest().encode(), data[len(LARGE) :]
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest)
            continue
        if b"/chunks" in head:
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS)
            continue
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
        if b"/last" in head:
            wire.end()
            return


async def heard(wire: Wire, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await wire.recv()
        assert part, f"it ended after {len(data)} bytes"
        data += part
    return data


ANSWER = len(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n") + len(BODY)
REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\r\nno"


@pytest.fixture(params=["plain", "tls"])
def through(request):
    """Runs a dialogue over one connection; returns the flow's record and the requests'."""
    tls = request.param == "tls"

    def go(dialogue, config=CONFIG):
        async def main():
            options = {} if tls else {"origin": None}
            async with flows(origin, config=config, decide=Policy(config).decide, **options) as bench:
                wire, flow = bench.flow(weir_client() if tls else None)
                if tls:
                    await wire.handshake()
                await dialogue(wire)
                wire.close()
                await flow
                (record,) = bench.records
                return record, bench.surroundings.requests

        before = open_files()
        with no_cycles():
            result = run(main)
        assert open_files() == before
        return result

    return go


def test_requests_one_after_the_other_and_one_refused_among_them(through) -> None:
    async def dialogue(wire: Wire) -> None:
        await wire.send(GET % b"a")
        await heard(wire, ANSWER)
        await wire.send(GET % b"b" + GET % b"no" + GET % b"wait")
        got = await heard(wire, 2 * ANSWER + len(REFUSAL))
        assert got[ANSWER : ANSWER + len(REFUSAL)] == REFUSAL
        wire.end()
        assert await wire.read_all() == b""

    record, requests = through(dialogue)
    assert (record.rule, record.requests, record.error) == ("web", 4, None)
    assert record.bytes_down == 3 * ANSWER + len(REFUSAL)
    assert [(one.number, one.path, one.status, one.flow) for one in requests] == [
        (1, "/a", 200, record.id), (2, "/b", 200, record.id), (3, "/no", 403, record.id), (4, "/wait", 200, record.id),
    ]  # fmt: skip


def test_long_bodies_are_whole_and_counted_and_what_follows_them_is_read(through) -> None:
    """Most of them passes unread."""

    async def dialogue(wire: Wire) -> None:
        chunks = len(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") + len(CHUNKS)
        await wire.send(GET % b"chunks" + GET % b"no")
        assert (await heard(wire, chunks + len(REFUSAL))).endswith(CHUNKS + REFUSAL)
        put = b"PUT /put HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n" % len(LARGE)
        sending = asyncio.ensure_future(wire.send(put + LARGE + GET % b"no"))
        answer = await heard(wire, len(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n") + 64 + len(REFUSAL))
        assert answer.endswith(hashlib.sha256(LARGE).hexdigest().encode() + REFUSAL)
        await sending
        await wire.send(GET % b"until-end")
        assert await wire.read_all() == b"HTTP/1.1 200 OK\r\n\r\n" + LARGE
        wire.end()

    record, requests = through(dialogue)
    assert [(one.path, one.request_bytes, one.response_bytes, one.error) for one in requests] == [
        ("/chunks", 0, len(LARGE) + 1, None), ("/no", 0, 0, None), ("/put", len(LARGE), 64, None), ("/no", 0, 0, None),
        ("/until-end", 0, len(LARGE), None),
    ]  # fmt: skip
    assert record.error is None


def test_what_is_malformed_hears_so_and_the_connection_ends(through) -> None:
    async def dialogue(wire: Wire) -> None:
        await wire.send(GET % b"a" + b"GET /b HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n" + GET % b"c")
        got = (await wire.read_all())[ANSWER:]
        assert got.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"Connection: close\r\n" in got
        wire.end()

    record, requests = through(dialogue)
    assert record.requests == 2
    assert [(one.status, one.error) for one in requests] == [(200, None), (400, RequestError.MALFORMED_REQUEST)]


def test_an_abort_resets_both_ends(through) -> None:
    async def dialogue(wire: Wire) -> None:
        await wire.send(GET % b"cut")
        with pytest.raises(Exception, match=r"Connection reset|104|-1"):
            await wire.recv()

    record, requests = through(dialogue)
    assert [one.error for one in requests] == [RequestError.ABORTED_BY_RULE]
    assert (record.requests, record.error) == (1, None)


def test_an_upgrade_becomes_a_tunnel(through) -> None:
    async def dialogue(wire: Wire) -> None:
        await wire.send(b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        await heard(wire, len(SWITCHING))
        await wire.send(b"\x00" * 100_000)
        assert await heard(wire, 100_000) == b"\x00" * 100_000
        wire.end()
        assert await wire.read_all() == b""

    _, (request,) = through(dialogue)
    assert (request.status, request.error) == (101, None)
    assert (request.request_bytes, request.response_bytes) == (100_000, 100_000)


def test_a_server_that_ends_after_its_answer(through) -> None:
    async def dialogue(wire: Wire) -> None:
        await wire.send(GET % b"last")
        assert len(await wire.read_all()) == ANSWER
        wire.end()

    record, requests = through(dialogue)
    assert (record.requests, [one.error for one in requests]) == (1, [None])


def test_a_client_that_leaves_within_an_answer_is_told_of(through) -> None:
    async def dialogue(wire: Wire) -> None:
        await wire.send(GET % b"a")
        await heard(wire, 100)
        await asyncio.sleep(0.01)
        wire.reset()

    _, requests = through(dialogue)
    # All of it may have fitted into the sockets on the way.
    assert [(one.status, one.error) for one in requests] in [[(200, RequestError.CLIENT_GONE)], [(200, None)]]
