import asyncio

import pytest

from weir_sidecar.edge.tidy import Tidy, malloc_trim


@pytest.mark.parametrize(("most", "now", "trims"), [(100, 0, True), (100, 90, False), (63, 0, False), (64, 0, True)])
def test_memory_is_given_back_when_a_rush_has_passed(most: int, now: int, *, trims: bool) -> None:
    async def main() -> None:
        trimmed = asyncio.Event()
        asked = asyncio.Event()

        def open_flows() -> int:
            asked.set()
            return now

        tidy = Tidy(asyncio.get_running_loop(), open_flows, lambda: most, trimmed.set, interval=0.001)
        await asked.wait()
        await asyncio.sleep(0)
        tidy.close()
        assert trimmed.is_set() is trims

    asyncio.run(main())


def test_the_c_library_trims() -> None:
    malloc_trim()()
