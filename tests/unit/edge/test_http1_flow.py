"""HTTP/1.1 through a whole flow with real sockets, in the clear and decrypted."""

import asyncio

import pytest

from lab.flow_bench import flows, weir_client
from lab.loopback import Wire, no_cycles, open_files, run
from weir_sidecar.contract.config import Action, Match, Rule, SidecarConfig
from weir_sidecar.contract.http import PathMatch, RequestAction, RequestMatch, RequestRule
from weir_sidecar.contract.request import RequestError
from weir_sidecar.core.policy import Policy

GET = b"GET /%b HTTP/1.1\r\nHost: a.test\r\n\r\n"
BODY = b"x" * 300_000
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
