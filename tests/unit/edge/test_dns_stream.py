import asyncio
import socket
import struct
from typing import Self

import dns.message
import dns.rcode
import pytest

from lab.dns_server import question, reply, until
from lab.edge import Surroundings
from lab.mutate import mutated
from weir_sidecar.contract.config import DNS, Capture, SidecarConfig
from weir_sidecar.contract.flow import Decision, Protocol, Reason
from weir_sidecar.core.verdict import FlowFacts, Verdict
from weir_sidecar.edge import dns_stream
from weir_sidecar.edge.dns_query import TIMEOUT
from weir_sidecar.edge.dns_stream import DNSStreams

CLIENT = ("192.0.2.10", 40000)
DENY = Verdict(Decision.DENY, Reason.RULE, "no")
ALLOW = Verdict(Decision.PASSTHROUGH, Reason.RULE, "yes")


def decide(facts: FlowFacts) -> Verdict:
    return DENY if facts.host == "no.test" else ALLOW


class Peer:
    """One end of a TCP connection that speaks DNS, driven by the test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self._data = b""

    def send(self, *messages: bytes) -> None:
        self.sock.sendall(b"".join(len(message).to_bytes(2) + message for message in messages))

    async def receive(self) -> bytes | None:
        """The next message; None when the other side has closed. A reset is ConnectionResetError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            while len(self._data) < 2 or len(self._data) < 2 + int.from_bytes(self._data[:2]):
                chunk = await loop.sock_recv(self.sock, 65536)
                if not chunk:
                    return None
                self._data += chunk
        end = 2 + int.from_bytes(self._data[:2])
        message, self._data = self._data[2:end], self._data[end:]
        return message


class Bench(Surroundings):
    def __init__(self, dns: DNS | None = None) -> None:
        super().__init__(SidecarConfig(capture=Capture(dns=dns or DNS())), decide)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        self.opened: list[socket.socket] = [self.listener]

    def __enter__(self) -> Self:
        self.streams = DNSStreams(asyncio.get_running_loop(), self.context)
        return self

    def __exit__(self, *_exc) -> None:
        self.streams.close()
        for sock in self.opened:
            sock.close()

    def connect(self, destination=None) -> Peer:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
        theirs.setblocking(False)
        self.opened.append(ours)
        self.streams.serve(theirs, CLIENT, destination or self.address)
        return Peer(ours)

    async def upstream(self) -> Peer:
        async with asyncio.timeout(10):
            sock, _ = await asyncio.get_running_loop().sock_accept(self.listener)
        self.opened.append(sock)
        return Peer(sock)


def run(main) -> None:
    asyncio.run(main())


def test_pipelined_queries_are_answered_in_any_order_and_recorded_each() -> None:
    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            first, second = question("a.test."), question("b.test.")
            client.send(first, second)
            upstream = await bench.upstream()
            asked = [await upstream.receive(), await upstream.receive()]
            assert [message[2:] for message in asked] == [first[2:], second[2:]]
            upstream.send(reply(asked[1], "60 A 192.0.2.2"), reply(asked[0], "60 A 192.0.2.1"))
            for query, address in ((second, "192.0.2.2"), (first, "192.0.2.1")):
                answer = dns.message.from_wire(await client.receive())
                assert dns.message.from_wire(query).is_response(answer)
                assert answer.answer[0][0].to_text() == address
            assert [(record.host, record.protocol, record.rule) for record in bench.records] == [
                ("b.test", Protocol.DNS, "yes"),
                ("a.test", Protocol.DNS, "yes"),
            ]
            assert bench.context.names.name_of("192.0.2.1", bench.time) == "a.test"
            client.sock.close()
            assert await upstream.receive() is None
            assert len(bench.records) == 2

    run(main)


def test_the_largest_message_passes_byte_by_byte() -> None:
    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            query = question()
            for byte in len(query).to_bytes(2) + query:
                client.sock.sendall(bytes((byte,)))
                await asyncio.sleep(0)
            upstream = await bench.upstream()
            asked = await upstream.receive()
            answer = reply(asked, *[f'60 TXT "{n:0240d}"' for n in range(258)])
            rest = 65535 - len(answer) - 12 - 1
            answer = reply(asked, *[f'60 TXT "{n:0240d}"' for n in range(258)], f'60 TXT "{0:0{rest}d}"')
            assert len(answer) == 65535
            sending = asyncio.get_running_loop().sock_sendall(upstream.sock, len(answer).to_bytes(2) + answer)
            await asyncio.gather(sending, asyncio.sleep(0))
            assert await client.receive() == query[:2] + answer[2:]

    run(main)


def test_denied_names_need_no_upstream_and_others_on_the_connection_go_on() -> None:
    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            client.send(question("no.test."))
            assert dns.message.from_wire(await client.receive()).rcode() == dns.rcode.NXDOMAIN
            client.send(question("yes.test."))
            upstream = await bench.upstream()
            upstream.send(reply(await upstream.receive()))
            assert dns.message.from_wire(await client.receive()).rcode() == dns.rcode.NOERROR
            assert [record.decision for record in bench.records] == [Decision.DENY, Decision.PASSTHROUGH]

    run(main)


def test_service_records_are_edited() -> None:
    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            client.send(question("a.test.", "HTTPS"))
            upstream = await bench.upstream()
            upstream.send(reply(await upstream.receive(), '60 HTTPS 1 . alpn="h2,h3" ech="AAT+DQAA"'))
            answer = dns.message.from_wire(await client.receive())
            assert [rdata.to_text() for rdata in answer.answer[0]] == ['1 . alpn="h2"']

    run(main)


def test_a_client_that_closed_its_half_gets_its_answers_and_then_the_end() -> None:
    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            client.send(question())
            client.sock.shutdown(socket.SHUT_WR)
            upstream = await bench.upstream()
            upstream.send(reply(await upstream.receive()))
            assert await client.receive() is not None
            assert await client.receive() is None
            assert [record.error for record in bench.records] == [None]

    run(main)


def test_refused_upstream_resets_the_client() -> None:
    async def main() -> None:
        with Bench() as bench:
            bench.listener.close()
            client = bench.connect()
            client.send(question())
            with pytest.raises(ConnectionResetError):
                await client.receive()
            assert [record.error for record in bench.records] == ["upstream_refused"]

    run(main)


def test_reset_upstream_resets_the_client() -> None:
    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            client.send(question())
            upstream = await bench.upstream()
            await upstream.receive()
            upstream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            upstream.sock.close()
            with pytest.raises(ConnectionResetError):
                await client.receive()
            assert [record.error for record in bench.records] == ["upstream_reset"]

    run(main)


def test_upstream_that_closes_is_closed_to_the_client() -> None:
    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            client.send(question("a.test."), question("b.test."))
            upstream = await bench.upstream()
            upstream.send(reply(await upstream.receive()))
            await upstream.receive()
            upstream.sock.close()
            assert await client.receive() is not None
            assert await client.receive() is None
            assert [(record.host, record.error) for record in bench.records] == [
                ("a.test", None),
                ("b.test", "upstream_reset"),
            ]

    run(main)


def test_a_zone_transfer_takes_as_many_messages_as_it_takes() -> None:
    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            client.send(question("zone.test.", "AXFR"))
            upstream = await bench.upstream()
            asked = await upstream.receive()
            for n in range(3):
                upstream.send(reply(asked, f"60 A 192.0.2.{n}"))
            upstream.sock.close()
            for _ in range(3):
                assert await client.receive() is not None
            assert await client.receive() is None
            (record,) = bench.records
            assert record.error is None
            assert record.bytes_down == 3 * len(reply(asked, "60 A 192.0.2.1"))

    run(main)


@pytest.mark.parametrize("data", [b"\0\4junk", b"\0\0", b"\0\x40half", b"\0"])
def test_what_is_no_query_is_recorded_and_the_connection_reset(data: bytes) -> None:
    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            client.sock.sendall(data)
            client.sock.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionResetError):
                await client.receive()
            assert [(record.decision, record.reason) for record in bench.records] == [
                (Decision.DENY, Reason.DNS_MALFORMED)
            ]

    run(main)


def test_a_connection_without_a_query_has_one_record() -> None:
    async def main() -> None:
        with Bench() as bench:
            bench.connect().sock.close()
            await until(lambda: bench.records)
            assert bench.records[0].reason is Reason.CLIENT_GONE

    run(main)


def test_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_stream, "SWEEP", 0.01)

    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            silent = bench.connect()
            client.send(question())
            upstream = await bench.upstream()
            await upstream.receive()
            bench.time += TIMEOUT
            await until(lambda: bench.records)
            assert bench.records[0].error == "upstream_timed_out"
            bench.time += dns_stream.IDLE
            assert await client.receive() is None
            assert await silent.receive() is None
            assert [record.reason for record in bench.records[1:]] == [Reason.CLIENT_SILENT]

    run(main)


def test_queries_and_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_stream, "QUERIES", 2)
    monkeypatch.setattr(dns_stream, "CONNECTIONS", 1)

    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            refused = bench.connect()
            with pytest.raises(ConnectionResetError):
                await refused.receive()
            assert bench.records[0].reason is Reason.OVERLOADED
            client.send(*[question(f"n{n}.test.") for n in range(5)])
            upstream = await bench.upstream()
            asked = [await upstream.receive(), await upstream.receive()]
            await asyncio.sleep(0.01)
            with pytest.raises(BlockingIOError):
                upstream.sock.recv(1)
            for n in range(5):
                upstream.send(reply(asked[n]))
                assert await client.receive() is not None
                if len(asked) < 5:
                    asked.append(await upstream.receive())
            assert len(bench.records) == 6

    run(main)


def test_stopping_ends_everything_with_its_record() -> None:
    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            client.send(question())
            await (await bench.upstream()).receive()
            bench.connect()
            bench.streams.close()
            assert sorted(record.error for record in bench.records) == ["proxy_stopping", "proxy_stopping"]

    run(main)


def test_mutated_answers_break_nothing() -> None:
    async def main() -> None:
        with Bench() as bench:
            client = bench.connect()
            client.send(question("a.test.", "HTTPS"))
            upstream = await bench.upstream()
            asked = await upstream.receive()
            answer = reply(asked, '60 HTTPS 1 . alpn="h2,h3" ech="AAT+DQAA"')
            for wrong in mutated([answer], 300):
                upstream.send(wrong)
                await asyncio.sleep(0)
            bench.streams.close()
            assert len(bench.records) == 1

    run(main)
