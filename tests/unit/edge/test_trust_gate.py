import asyncio
from collections.abc import Callable

import pytest

from lab.loopback import run
from samples.trust_clients import BEFORE_CERTIFICATE, refused, spoke
from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.flow import Reason
from weir_sidecar.core.trust_cache import Ticket, TrustCache
from weir_sidecar.edge.trust_gate import TrustGate

HOST = "a.test"
APP = (1000, "t13d1516h2_8daaf6152771_b186095e22b6")


class Bench:
    def __init__(self, wait: float = 5.0) -> None:
        self.time = 1000.0
        self.changes = 0
        self.cache = TrustCache(FailOpen(), canary_wait=wait)
        self.gate = TrustGate(asyncio.get_running_loop(), self.cache, lambda: self.time, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def admit(self, host: str = HOST):
        return asyncio.ensure_future(self.gate.admit(host, *APP))


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_burst_waits_for_one_canary_and_follows_it_into_trust() -> None:
    async def main() -> None:
        bench = Bench()
        reason, canary = await bench.admit()
        assert (reason, canary is None) == (None, False)
        burst = [bench.admit() for _ in range(50)]
        await turn()
        assert not any(task.done() for task in burst)
        bench.gate.report(canary, spoke())
        admitted = await asyncio.gather(*burst)
        assert all(reason is None and ticket is not None for reason, ticket in admitted)
        assert bench.changes == 1
        assert not bench.gate._waiting

    run(main)


def test_a_burst_follows_a_refused_canary_into_bypass() -> None:
    async def main() -> None:
        bench = Bench()
        _, canary = await bench.admit()
        burst = [bench.admit() for _ in range(50)]
        await turn()
        bench.gate.report(canary, refused(48))
        assert set(await asyncio.gather(*burst)) == {(Reason.CLIENT_DISTRUSTS_CA, None)}

    run(main)


@pytest.mark.parametrize(
    "leave",
    [
        lambda gate, ticket: gate.abandon(ticket),
        lambda gate, ticket: gate.report(ticket, BEFORE_CERTIFICATE),
    ],
)
def test_a_canary_that_tells_nothing_makes_room_for_the_next(leave: Callable[[TrustGate, Ticket], None]) -> None:
    async def main() -> None:
        bench = Bench()
        _, canary = await bench.admit()
        second, third = bench.admit(), bench.admit()
        await turn()
        assert not second.done()
        leave(bench.gate, canary)
        await turn()
        assert second.done()
        assert not third.done()
        bench.gate.report(second.result()[1], spoke())
        await third

    run(main)


def test_nobody_waits_for_longer_than_is_allowed() -> None:
    async def main() -> None:
        bench = Bench(wait=0.02)
        await bench.admit()
        second = bench.admit()
        await turn()
        assert not second.done()
        bench.time += 0.03
        reason, ticket = await second
        assert reason is None
        assert ticket is not None

    run(main)


def test_a_cancelled_flow_leaves_nothing_behind() -> None:
    async def main() -> None:
        bench = Bench()
        _, canary = await bench.admit()
        second, third = bench.admit(), bench.admit()
        await turn()
        second.cancel()
        third.cancel()
        await turn()
        assert not bench.gate._waiting
        bench.gate.report(canary, spoke())

    run(main)


def test_a_persons_word_wakes_everybody_at_once() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.admit()
        waiting = [bench.admit() for _ in range(5)]
        await turn()
        bench.cache.pin(HOST, None, None, bench.time)
        bench.gate.wake_all()
        assert set(await asyncio.gather(*waiting)) == {(Reason.PINNED, None)}
        bench.cache.approve(HOST, None, None, bench.time)
        bench.gate.wake_all()
        reason, ticket = await bench.admit()
        assert (reason, ticket is None) == (Reason.APPROVED, False)
        assert bench.changes == 2

    run(main)


def test_a_host_that_asks_for_client_certificates_is_remembered() -> None:
    async def main() -> None:
        bench = Bench()
        bench.gate.remember_client_certificate(HOST)
        assert await bench.admit() == (Reason.CLIENT_CERTIFICATE_REQUESTED, None)
        assert bench.changes == 1

    run(main)
