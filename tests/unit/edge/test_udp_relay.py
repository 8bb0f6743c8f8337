import asyncio
import errno
from typing import Self

import pytest

from lab.dns_server import UDPServer, until
from lab.edge import SentReplies, SentUnreachable, Surroundings
from weir_sidecar.contract.flow import Decision, Protocol, Reason
from weir_sidecar.core.verdict import Verdict
from weir_sidecar.edge import udp_relay
from weir_sidecar.edge.udp_relay import IDLE, IDLE_UNANSWERED, REFUSED_FOR, UDPRelay

CLIENT = ("192.0.2.10", 40000)
PASS = Verdict(Decision.PASSTHROUGH, Reason.RULE, "yes")
DENY = Verdict(Decision.DENY, Reason.RULE, "no")


class Bench(Surroundings):
    def __init__(self, verdict: Verdict = PASS, limit: int = 16) -> None:
        super().__init__(decide=lambda _: verdict)
        self.limit = limit
        self.replies = SentReplies()
        self.unreachable = SentUnreachable()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.relay = UDPRelay(loop, self.context, self.replies, self.unreachable, self.limit)
        return self

    def __exit__(self, *_exc) -> None:
        self.relay.close()


@pytest.fixture(autouse=True)
def _sweep_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_relay, "SWEEP", 0.01)


def run(main) -> None:
    asyncio.run(main())


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_relays_both_ways_and_records_the_flow_when_it_ends(address: str) -> None:
    async def main() -> None:
        with UDPServer(address) as server, Bench() as bench:
            bench.context.names.learn("a.test", [address], 60, bench.time)
            bench.relay.receive(b"one", CLIENT, server.address)
            bench.relay.receive(b"", CLIENT, server.address)
            data, source = await server.asked()
            assert (data, (await server.asked())[0]) == (b"one", b"")
            for answer in (b"first", b"x" * 60000):
                server.sock.sendto(answer, source)
            await until(lambda: len(bench.replies.sent) == 2)
            assert bench.replies.sent[0] == (b"first", CLIENT, server.address)
            assert bench.replies.sent[1] == (b"x" * 60000, CLIENT, server.address)
            bench.time += IDLE - 1
            await asyncio.sleep(0.03)
            assert not bench.records
            bench.time += 1
            await until(lambda: bench.records)
            (record,) = bench.records
            assert (record.protocol, record.host, record.rule) == (Protocol.UDP, "a.test", "yes")
            assert (record.address, record.port) == server.address[:2]
            assert (record.bytes_up, record.bytes_down, record.error) == (3, 60005, None)
            assert (record.decision, record.duration_ms) == (Decision.PASSTHROUGH, IDLE * 1000)

    run(main)


def test_a_flow_without_an_answer_ends_sooner() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            bench.relay.receive(b"one", CLIENT, server.address)
            bench.time += IDLE_UNANSWERED
            await until(lambda: bench.records)
            assert bench.records[0].bytes_down == 0

    run(main)


def test_clients_and_destinations_have_flows_of_their_own() -> None:
    async def main() -> None:
        with UDPServer() as server, UDPServer() as other, Bench() as bench:
            second = (CLIENT[0], CLIENT[1] + 1)
            for client, destination in ((CLIENT, server), (second, server), (CLIENT, other)):
                bench.relay.receive(str(client[1]).encode(), client, destination.address)
            for destination in (server, server, other):
                data, source = await destination.asked()
                destination.sock.sendto(data, source)
            await until(lambda: len(bench.replies.sent) == 3)
            assert {(data, client[1]) for data, client, _ in bench.replies.sent} == {
                (b"40000", 40000),
                (b"40001", 40001),
            }

    run(main)


def test_an_intercept_verdict_is_a_passthrough_with_that_reason() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench(Verdict(Decision.INTERCEPT, Reason.DEFAULT)) as bench:
            bench.relay.receive(b"one", CLIENT, server.address)
            await server.asked()
            bench.relay.close()
            (record,) = bench.records
            assert (record.decision, record.reason) == (Decision.PASSTHROUGH, Reason.NOT_TLS_OR_HTTP)
            assert record.error == "proxy_stopping"

    run(main)


def test_icmp_from_upstream_is_passed_on_and_the_flow_goes_on() -> None:
    async def main() -> None:
        with Bench() as bench:
            with UDPServer() as gone:
                pass
            for n in range(1, 4):
                bench.relay.receive(b"one", CLIENT, gone.address)
                await until(lambda n=n: len(bench.unreachable.sent) == n)
            assert set(bench.unreachable.sent) == {(CLIENT, gone.address, errno.ECONNREFUSED)}
            bench.time += IDLE_UNANSWERED
            await until(lambda: bench.records)
            assert [record.error for record in bench.records] == ["upstream_refused"]

    run(main)


def test_a_denied_flow_is_refused_and_has_one_record_in_a_while() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench(DENY) as bench:
            for _ in range(3):
                bench.relay.receive(b"four", CLIENT, server.address)
            assert bench.unreachable.sent == [(CLIENT, server.address, errno.ECONNREFUSED)] * 3
            assert server.quiet()
            bench.time += REFUSED_FOR
            await until(lambda: bench.records)
            (record,) = bench.records
            assert (record.decision, record.rule, record.bytes_up) == (Decision.DENY, "no", 12)

    run(main)


@pytest.mark.parametrize("tell", [True, False])
def test_refusals_keep_their_reason(tell: bool) -> None:
    async def main() -> None:
        with Bench() as bench:
            bench.relay.refuse(b"four", CLIENT, ("198.51.100.1", 443), Reason.QUIC_REJECTED, tell=tell)
            bench.relay.refuse(b"four", CLIENT, ("198.51.100.1", 443), Reason.QUIC_REJECTED, tell=tell)
            assert len(bench.unreachable.sent) == (2 if tell else 0)
            bench.relay.close()
            (record,) = bench.records
            assert (record.decision, record.reason, record.bytes_up) == (Decision.DENY, Reason.QUIC_REJECTED, 8)

    run(main)


def test_no_way_out_is_told_and_recorded() -> None:
    async def main() -> None:
        with Bench() as bench:
            bench.relay.receive(b"one", CLIENT, ("255.255.255.255", 9))
            bench.relay.close()
            assert bench.unreachable.sent == [(CLIENT, ("255.255.255.255", 9), errno.EACCES)]
            assert bench.records[0].decision is Decision.PASSTHROUGH

    run(main)


def test_the_longest_idle_flow_makes_room() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench(limit=2) as bench:
            clients = [(CLIENT[0], port) for port in (1, 2, 3)]
            bench.relay.receive(b"", clients[0], server.address)
            bench.relay.receive(b"", clients[1], server.address)
            bench.relay.receive(b"x", clients[0], server.address)
            bench.relay.receive(b"", clients[2], server.address)
            assert [(record.bytes_up, record.error) for record in bench.records] == [(0, "overloaded")]
            bench.relay.close()
            assert len(bench.records) == 3

    run(main)
