"""What becomes of a held SYN, with real upstreams on loopback; only the packets' way in and out is a stand-in."""

import asyncio
import errno
import socket
import struct
from contextlib import contextmanager

import msgspec
import pytest

from lab.dns_server import until
from lab.edge import Surroundings
from samples.syn_packet import syn
from weir_sidecar.contract.config import Limits, SidecarConfig
from weir_sidecar.contract.flow import Decision, FlowError, Reason
from weir_sidecar.core.verdict import Verdict
from weir_sidecar.edge import syn_hold
from weir_sidecar.edge.syn_hold import SynHold
from weir_sidecar.edge.syn_tap import SynTap
from weir_sidecar.wire.syn import ADMITTED_HOPS, HELD_PROTOCOL

CLIENT = ("10.0.0.2", 40000)


class Raw:
    """Receives what the kernel would give, and keeps the packets that would have been sent, and to whom."""

    family = socket.AF_INET

    def __init__(self, kernel):
        self.sent = []
        self._kernel = kernel
        self.fileno, self.recv = kernel.fileno, kernel.recv

    def sendto(self, packet, to):
        self.sent.append((packet, to[0]))

    def close(self):
        self._kernel.close()


class Told:
    """Keeps the ICMP errors that would have been sent."""

    def __init__(self):
        self.sent = []

    def quote(self, client, error, packet, scope=()):
        self.sent.append((client, error, packet))


class Bench:
    def __init__(self, surroundings):
        self.surroundings = surroundings
        self.kernel, received = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        received.setblocking(False)
        self.raw, self.told = Raw(received), Told()
        tap = SynTap({int(socket.AF_INET): self.raw})
        self.hold = SynHold(asyncio.get_running_loop(), surroundings.context, tap, self.told)

    def comes(self, destination, sequence=1):
        self.kernel.send(syn(ends=(CLIENT, destination), sequence=sequence, protocol=HELD_PROTOCOL))

    def take(self, destination):
        return self.hold.take(CLIENT, destination)

    @property
    def admitted(self):
        return [packet for packet, _ in self.raw.sent if packet[8] == ADMITTED_HOPS]


@contextmanager
def bench(config=None, decision=Decision.INTERCEPT):
    made = Bench(Surroundings(config, lambda _: Verdict(decision, Reason.DEFAULT)))
    try:
        yield made
    finally:
        made.hold.close()
        made.kernel.close()


@pytest.fixture
def upstream():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


@pytest.fixture
def closed():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()


def test_an_upstream_that_answers_admits_the_client_once(upstream):
    async def main():
        with bench() as it:
            it.comes(upstream)
            await until(lambda: it.admitted)
            assert it.raw.sent[0][1] == upstream[0]
            admitted = it.take(upstream)
            assert admitted.uid == 1000
            assert admitted.dial.sock.getpeername() == upstream
            assert it.take(upstream) is None
            assert it.surroundings.records == []
            admitted.dial.sock.close()

    asyncio.run(main())


def test_a_syn_that_is_lost_on_its_way_back_is_sent_once_more(upstream):
    async def main():
        with bench() as it:
            it.comes(upstream)
            await until(lambda: it.admitted)
            it.comes(upstream)
            await until(lambda: len(it.admitted) == 2)

    asyncio.run(main())


def test_a_refusal_is_passed_on_and_recorded_once(closed):
    async def main():
        with bench() as it:
            it.comes(closed)
            await until(lambda: it.raw.sent)
            it.comes(closed)  # the same SYN, sent before the answer came
            await asyncio.sleep(0.05)
            ((packet, to),) = it.raw.sent
            flags, acknowledged = packet[33], struct.unpack_from("!I", packet, 28)[0]
            assert (to, flags, acknowledged) == (CLIENT[0], 0x14, 2)
            (record,) = it.surroundings.records
            assert (record.reason, record.error) == (Reason.UPSTREAM_UNAVAILABLE, FlowError.UPSTREAM_REFUSED)
            assert (record.address, record.port, record.client.uid) == (*closed, 1000)
            assert it.take(closed) is None
            it.comes(closed, sequence=2)  # another attempt from the same port
            await until(lambda: len(it.surroundings.records) == 2)

    asyncio.run(main())


def test_what_is_in_the_way_is_told_by_icmp(monkeypatch):
    async def main():
        with bench() as it:
            it.comes(("192.0.2.1", 443))
            await until(lambda: it.told.sent)
            ((client, error, packet),) = it.told.sent
            assert (client, error) == (CLIENT[0], errno.ENETUNREACH)
            assert packet == syn(ends=(CLIENT, ("192.0.2.1", 443)), sequence=1)
            assert it.raw.sent == []
            assert it.surroundings.records[0].error == FlowError.UPSTREAM_UNREACHABLE

    def unreachable(destination):
        raise syn_hold.DialError(OSError(errno.ENETUNREACH, "connect"))

    monkeypatch.setattr(syn_hold, "Dial", unreachable)
    asyncio.run(main())


def test_an_upstream_that_accepts_and_resets_at_once_lets_the_client_in_to_find_out():
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server, bench() as it:
            destination = server.getsockname()
            it.comes(destination)
            it.hold._readable(it.raw)  # it dials; the loop looks after the reset has come
            accepted, _ = server.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            await until(lambda: it.admitted)
            assert it.take(destination) is None
            assert (it.surroundings.records, it.told.sent) == ([], [])

    asyncio.run(main())


def test_want_of_descriptors_is_not_told_and_the_next_syn_tries_again(monkeypatch, upstream):
    async def main():
        with bench() as it:
            with monkeypatch.context() as patched:
                patched.setattr(syn_hold, "Dial", exhausted)
                it.comes(upstream)
                await until(lambda: it.surroundings.records)
            assert it.surroundings.records[0].error == FlowError.OVERLOADED
            assert (it.raw.sent, it.told.sent[0][1]) == ([], errno.EMFILE)
            it.comes(upstream)
            await until(lambda: it.admitted)

    def exhausted(destination):
        raise syn_hold.DialError(OSError(errno.EMFILE, "socket"))

    asyncio.run(main())


def test_what_may_not_be_connected_unheard_is_let_in_to_be_heard(upstream):
    async def main():
        with bench(decision=Decision.DENY) as it:
            it.comes(upstream)
            await until(lambda: it.admitted)
            assert it.take(upstream) is None

    asyncio.run(main())


def test_dns_is_let_in(upstream):
    async def main():
        with bench() as it:
            it.comes(("192.0.2.53", 53))
            await until(lambda: it.admitted)
            assert it.surroundings.facts == []

    asyncio.run(main())


def test_beyond_the_limit_nothing_is_held(upstream):
    async def main():
        config = msgspec.structs.replace(SidecarConfig(), limits=Limits(flows=1))
        with bench(config) as it:
            it.comes(upstream)
            await until(lambda: it.admitted)
            it.comes((upstream[0], 1))
            await until(lambda: len(it.admitted) == 2)
            assert it.surroundings.records == []

    asyncio.run(main())


def test_a_client_that_went_away_is_given_up(upstream, monkeypatch):
    monkeypatch.setattr(syn_hold, "_SWEEP", 0.02)

    async def main():
        with bench() as it:
            it.comes(upstream)
            await until(lambda: it.admitted)
            it.surroundings.time += 1
            await asyncio.sleep(0.1)
            assert it.surroundings.records == []  # still there
            it.surroundings.context.uid_of = lambda *_: None
            await until(lambda: it.surroundings.records)
            assert it.take(upstream) is None

    asyncio.run(main())


def test_what_was_held_is_not_taken_for_the_next_attempt_from_the_same_port(upstream):
    async def main():
        with bench() as it:
            it.comes(upstream)
            await until(lambda: it.admitted)
            it.surroundings.context.decide = lambda _: Verdict(Decision.DENY, Reason.RULE)
            it.comes(upstream, sequence=2)  # let in to be heard, and its upstream is not the closed one
            await until(lambda: len(it.admitted) == 2)
            assert it.take(upstream) is None

    asyncio.run(main())
