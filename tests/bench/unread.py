"""`python -m tests.bench.unread`: the sidecar as it is, but that no HTTP is read. The bench compares what reading costs.

There is no such setting: what a policy says of requests must not depend on one.
"""

import sys

from weir_sidecar import __main__ as program
from weir_sidecar.edge.interception import Interception
from weir_sidecar.edge.tcp_flow import TCPFlow
from weir_sidecar.edge.tcp_peek import Opening


def _no_reader(_: Interception, _alpn: bytes | None) -> None:
    return


async def _relay(self: TCPFlow, _: Opening) -> None:
    await self._relay_unread()


if __name__ == "__main__":
    Interception._reader = _no_reader  # type: ignore[method-assign]
    TCPFlow._read_http = _relay  # type: ignore[method-assign]
    sys.exit(program.main())
