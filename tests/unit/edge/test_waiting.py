import asyncio

import pytest

from lab.loopback import open_files, pair, run
from weir_sidecar.edge.waiting import wait_any


def test_tells_which_descriptor_is_ready() -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        (a, b), (c, d) = pair(), pair()
        waiting = asyncio.ensure_future(wait_any(running, readable=(a.fileno(), c.fileno())))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        d.send(b"x")
        assert await waiting == c.fileno()
        assert await wait_any(running, readable=(a.fileno(),), writable=(c.fileno(),)) == c.fileno()
        for sock in (a, b, c, d):
            sock.close()

    run(main)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.01])
def test_time_may_run_out_and_nothing_stays_registered(seconds: float) -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        a, b = pair()
        assert await wait_any(running, readable=(a.fileno(),), seconds=seconds) is None
        assert not running.remove_reader(a.fileno())
        a.close()
        b.close()

    run(main)


def test_cancelling_takes_it_out_of_the_loop() -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        a, b = pair()
        waiting = asyncio.ensure_future(wait_any(running, readable=(a.fileno(),), seconds=5))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not running.remove_reader(a.fileno())
        a.close()
        b.close()

    before = open_files()
    run(main)
    assert open_files() == before


def test_a_peer_that_is_gone_is_ready() -> None:
    async def main() -> None:
        a, b = pair()
        b.close()
        assert await wait_any(asyncio.get_running_loop(), readable=(a.fileno(),)) == a.fileno()
        a.close()

    run(main)
