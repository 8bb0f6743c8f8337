import asyncio
import errno
import itertools
import socket
from typing import Self

import dns.message
import dns.rcode
import pytest

from lab.dns_server import UDPServer, question, reply, until
from lab.edge import SentReplies, SentUnreachable, Surroundings
from lab.mutate import mutated
from weir_sidecar.contract.config import DNS, Capture, DNSDenial, SidecarConfig
from weir_sidecar.contract.flow import Decision, Protocol, Reason
from weir_sidecar.core.verdict import Verdict
from weir_sidecar.edge import dns_forwarder
from weir_sidecar.edge.dns_forwarder import DNSForwarder
from weir_sidecar.edge.dns_query import TIMEOUT

CLIENT = ("192.0.2.10", 40000)
DENY = Verdict(Decision.DENY, Reason.RULE, "no")


class Bench(Surroundings):
    def __init__(self, dns: DNS | None = None, **options) -> None:
        super().__init__(SidecarConfig(capture=Capture(dns=dns or DNS())), **options)
        self.replies = SentReplies()
        self.unreachable = SentUnreachable()

    def __enter__(self) -> Self:
        self.forwarder = DNSForwarder(asyncio.get_running_loop(), self.context, self.replies, self.unreachable)
        return self

    def __exit__(self, *_exc) -> None:
        self.forwarder.close()

    def answer(self, n: int = -1) -> dns.message.Message:
        return dns.message.from_wire(self.replies.sent[n][0])


def run(main) -> None:
    asyncio.run(main())


def test_forwards_the_bytes_and_answers_from_the_address_that_was_asked() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            query = question("wWw.Example.test.", use_edns=0, want_dnssec=True)
            bench.forwarder.receive(query, CLIENT, server.address)
            asked, source = await server.asked()
            assert asked[2:] == query[2:]
            answer = reply(asked, "60 A 192.0.2.1")
            server.sock.sendto(answer, source)
            await until(lambda: bench.records)
            assert bench.replies.sent == [(query[:2] + answer[2:], CLIENT, server.address)]
            (record,) = bench.records
            assert (record.protocol, record.host) == (Protocol.DNS, "www.example.test")
            assert (record.address, record.port) == server.address
            assert (record.decision, record.reason, record.error) == (Decision.PASSTHROUGH, Reason.DEFAULT, None)
            assert (record.bytes_up, record.bytes_down) == (len(query), len(answer))
            assert (record.client.uid, record.client.address) == (1000, CLIENT[0])
            assert bench.context.names.name_of("192.0.2.1", bench.time) == "www.example.test"

    run(main)


def test_asks_the_server_of_the_policy_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with UDPServer() as server, Bench(DNS(server="127.0.0.1")) as bench:
            monkeypatch.setattr(
                dns_forwarder, "server_of", lambda config, _: (config.capture.dns.server, server.address[1])
            )
            bench.forwarder.receive(question(), CLIENT, ("198.51.100.1", 53))
            asked, source = await server.asked()
            server.sock.sendto(reply(asked), source)
            await until(lambda: bench.records)
            assert bench.replies.sent[0][2] == ("198.51.100.1", 53)
            assert bench.records[0].address == "198.51.100.1"

    run(main)


def test_only_an_answer_to_the_question_under_the_id_is_taken() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            bench.forwarder.receive(question(), CLIENT, server.address)
            asked, source = await server.asked()
            good = reply(asked, "60 A 192.0.2.1")
            other_id = bytes((good[0] ^ 1,)) + good[1:]
            for wrong in (other_id, good.replace(b"example", b"axample"), asked, b"", b"\0", good[:11]):
                server.sock.sendto(wrong, source)
            server.sock.sendto(good, source)
            server.sock.sendto(good, source)
            await until(lambda: bench.records)
            await asyncio.sleep(0.01)
            assert len(bench.replies.sent) == len(bench.records) == 1
            assert bench.answer().answer

    run(main)


def test_ids_and_ports_upstream_are_not_the_clients_and_vary() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            seen = set()
            for n in range(40):
                bench.forwarder.receive(b"\0\0" + question(f"n{n}.test.")[2:], CLIENT, server.address)
                asked, source = await server.asked()
                seen.add((asked[:2], source[1]))
            assert len({ident for ident, _ in seen}) > 35
            assert 1 < len({port for _, port in seen}) <= 4
            bench.time += 6
            bench.forwarder.receive(question(), CLIENT, server.address)
            _, source = await server.asked()
            assert source[1] not in {port for _, port in seen}

    run(main)


def test_a_retransmission_is_sent_again_and_has_no_record_of_its_own() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            query = question()
            bench.forwarder.receive(query, CLIENT, server.address)
            first = await server.asked()
            bench.time += 5
            bench.forwarder.receive(query, CLIENT, server.address)
            assert await server.asked() == first
            server.sock.sendto(reply(first[0]), first[1])
            await until(lambda: bench.records)
            (record,) = bench.records
            assert record.bytes_up == 2 * len(query)
            assert record.duration_ms == 5000

    run(main)


def test_silence_stays_silence_and_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_forwarder, "SWEEP", 0.01)

    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            bench.forwarder.receive(question(), CLIENT, server.address)
            asked, source = await server.asked()
            bench.time += TIMEOUT
            await until(lambda: bench.records)
            assert bench.records[0].error == "upstream_timed_out"
            assert bench.records[0].decision is Decision.PASSTHROUGH
            server.sock.sendto(reply(asked), source)
            await asyncio.sleep(0.02)
            assert not bench.replies.sent
            assert not bench.unreachable.sent

    run(main)


def test_refused_upstream_is_refused_to_the_client_and_later_queries_go_on() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            with UDPServer() as gone:
                pass
            for n in range(1, 4):
                bench.forwarder.receive(question(), CLIENT, gone.address)
                await until(lambda n=n: len(bench.records) == n)
                assert bench.unreachable.sent[-1] == (CLIENT, gone.address, errno.ECONNREFUSED)
                assert bench.records[-1].error == "upstream_refused"
            bench.forwarder.receive(question(), CLIENT, server.address)
            asked, source = await server.asked()
            server.sock.sendto(reply(asked), source)
            await until(lambda: len(bench.records) == 4)
            assert bench.records[3].error is None

    run(main)


def test_a_socket_that_met_an_error_still_hears_its_answers() -> None:
    async def main() -> None:
        with Bench() as bench:
            server = UDPServer()
            address = server.address
            ask = (question(f"n{n}.test.") for n in itertools.count())
            # The four sockets to the server are opened, and each meets a refusal while the server is away.
            server.sock.close()
            for n in range(32):
                bench.forwarder.receive(next(ask), CLIENT, address)
                await until(lambda n=n: len(bench.records) == n + 1)
            server.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            server.sock.bind(address)
            with server:
                for _ in range(16):
                    bench.forwarder.receive(next(ask), CLIENT, address)
                    asked, source = await server.asked()
                    server.sock.sendto(reply(asked), source)
                await until(lambda: len(bench.records) == 48)
            assert {record.error for record in bench.records[32:]} == {None}

    run(main)


def test_no_route_is_told_and_recorded() -> None:
    async def main() -> None:
        with Bench() as bench:
            bench.forwarder.receive(question(), CLIENT, ("255.255.255.255", 53))
            assert [record.error for record in bench.records] == ["upstream_unreachable"]

    run(main)


@pytest.mark.parametrize("rdtype", ["A", "AAAA", "HTTPS", "TXT", "ANY"])
@pytest.mark.parametrize("denial", list(DNSDenial))
def test_a_denied_name_is_answered_and_never_asked(rdtype: str, denial: DNSDenial) -> None:
    async def main() -> None:
        with UDPServer() as server, Bench(DNS(denial=denial), decide=lambda _: DENY) as bench:
            bench.forwarder.receive(question("No.test.", rdtype), CLIENT, server.address)
            assert bench.answer().rcode() == dns.rcode.from_text(denial)
            assert bench.replies.sent[0][1:] == (CLIENT, server.address)
            (record,) = bench.records
            assert (record.decision, record.reason, record.rule, record.host) == (
                Decision.DENY,
                Reason.RULE,
                "no",
                "no.test",
            )
            assert record.bytes_down == len(bench.replies.sent[0][0])
            facts = bench.facts[0]
            assert (facts.protocol, facts.host, facts.port, facts.uid) == (
                Protocol.DNS,
                "no.test",
                server.address[1],
                1000,
            )
            assert server.quiet()

    run(main)


@pytest.mark.parametrize("blocked", [True, False])
def test_the_doh_canary(blocked: bool) -> None:
    async def main() -> None:
        with UDPServer() as server, Bench(DNS(block_doh_canary=blocked, denial=DNSDenial.REFUSED)) as bench:
            bench.forwarder.receive(question("use-application-dns.NET."), CLIENT, server.address)
            assert server.quiet() is blocked
            if blocked:
                assert bench.answer().rcode() == dns.rcode.NXDOMAIN
                assert bench.records[0].reason is Reason.DOH_CANARY

    run(main)


def test_service_records_are_edited_as_the_policy_says() -> None:
    record = '60 HTTPS 1 . alpn="h2,h3" ech="AAT+DQAA" ipv4hint="192.0.2.7"'

    async def main() -> None:
        for options, expected in (
            (DNS(), '1 . alpn="h2" ipv4hint="192.0.2.7"'),
            (DNS(strip_ech=False, strip_h3=False), record.split(maxsplit=2)[2]),
        ):
            with UDPServer() as server, Bench(options) as bench:
                bench.forwarder.receive(question("_8443._https.www.test.", "HTTPS"), CLIENT, server.address)
                asked, source = await server.asked()
                server.sock.sendto(reply(asked, record), source)
                await until(lambda bench=bench: bench.records)
                (found,) = (rdata.to_text() for rdata in bench.answer().answer[0])
                assert sorted(found.split()) == sorted(expected.split())
                assert bench.context.names.name_of("192.0.2.7", bench.time) == "www.test"

    run(main)


def test_an_answer_that_cannot_be_edited_does_not_pass() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            bench.forwarder.receive(question("www.test.", "HTTPS"), CLIENT, server.address)
            asked, source = await server.asked()
            server.sock.sendto(reply(asked, '60 HTTPS 1 . ech="AAT+DQAA"')[:-1], source)
            await until(lambda: bench.records)
            assert not bench.replies.sent
            assert bench.records[0].error == "upstream_answer_malformed"

    run(main)


def test_a_truncated_answer_passes_as_it_is() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            query = question()
            bench.forwarder.receive(query, CLIENT, server.address)
            asked, source = await server.asked()
            cut = bytearray(reply(asked, "60 A 192.0.2.1"))[:-5]
            cut[2] |= 2
            server.sock.sendto(cut, source)
            await until(lambda: bench.records)
            assert bench.replies.sent[0][0] == query[:2] + bytes(cut[2:])

    run(main)


def test_what_is_no_query_is_dropped_and_recorded() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            bench.forwarder.receive(b"junk", CLIENT, server.address)
            (record,) = bench.records
            assert (record.decision, record.reason, record.host) == (Decision.DENY, Reason.DNS_MALFORMED, None)
            assert record.bytes_up == 4
            assert server.quiet()
            assert not bench.replies.sent

    run(main)


def test_mutated_queries_and_answers_leave_one_record_each() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            samples = [question(use_edns=0), question("a.test.", "HTTPS")]
            for n, message in enumerate(mutated(samples, 2500)):
                bench.forwarder.receive(message, (CLIENT[0], 1 + n), server.address)
                while not server.quiet():
                    asked, source = await server.asked()
                    answer = reply(question(), '60 HTTPS 1 . ech="AAT+DQAA"', "60 A 192.0.2.1")
                    for wrong in mutated([asked[:2] + answer[2:]], 2, seed=n):
                        server.sock.sendto(wrong, source)
                if n % 32 == 0:
                    await asyncio.sleep(0)
            bench.forwarder.close()
            assert len(bench.records) == 2500

    run(main)


def test_the_cache_answers_the_same_question_without_asking() -> None:
    async def main() -> None:
        with UDPServer() as server, Bench(DNS(cache=True)) as bench:
            bench.forwarder.receive(question(), CLIENT, server.address)
            asked, source = await server.asked()
            server.sock.sendto(reply(asked, "60 A 192.0.2.1"), source)
            await until(lambda: bench.records)
            bench.time += 10
            again = question("WWW.example.test.")
            bench.forwarder.receive(again, CLIENT, server.address)
            assert server.quiet()
            assert dns.message.from_wire(again).is_response(bench.answer())
            assert bench.answer().answer[0].ttl == 50
            assert len(bench.records) == 2

    run(main)


def test_the_number_of_waiting_queries_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_forwarder, "PENDING", 4)

    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            for n in range(6):
                bench.forwarder.receive(question(f"n{n}.test."), CLIENT, server.address)
            assert [(record.host, record.error) for record in bench.records] == [
                ("n0.test", "overloaded"),
                ("n1.test", "overloaded"),
            ]
            bench.forwarder.close()
            assert [record.error for record in bench.records[2:]] == ["proxy_stopping"] * 4

    run(main)


@pytest.mark.parametrize(
    ("number", "error", "told"),
    [(errno.EPERM, "client_unreachable", []), (errno.EHOSTDOWN, "agent_away", [errno.ECONNREFUSED])],
)
def test_an_answer_that_cannot_be_sent_is_an_error_in_the_record(number: int, error: str, told: list[int]) -> None:
    async def main() -> None:
        with UDPServer() as server, Bench() as bench:
            bench.replies.error = number
            bench.forwarder.receive(question(), CLIENT, server.address)
            asked, source = await server.asked()
            server.sock.sendto(reply(asked), source)
            await until(lambda: bench.records)
            assert bench.records[0].error == error
            assert [sent[2] for sent in bench.unreachable.sent] == told

    run(main)
