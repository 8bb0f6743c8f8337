"""Clients for the trust cache's tests, many and light, in one process: `python -m lab.trust_load`.

Reads one JSON job a line, {`kind`, `host`, `address`, `port`, `count`, `ca`}, and answers each with one line: how many
of the connections came to which end. With `ca` the clients trust that file alone; without, what Weir prepared for them.
"""

import asyncio
import json
import os
import random
import socket
import sys
from collections import Counter
from typing import Any

from OpenSSL import SSL

from lab.loopback import Wire
from lab.raw_servers import reset

CONCURRENCY = 64
PATIENCE = 30.0
STAY = 0.3
"""Seconds that a connection made in advance waits for its use."""

HARMLESS = ("talk", "talk", "talk", "touch", "cancel_early", "cancel_late", "check", "ahead", "ahead_unused")
"""What clients that trust do: talk, look whether the port is open, give up, check the handshake, connect in advance."""


class Clients:
    """One job's clients; they share a context, as one application's would."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._address = (job["address"], job["port"])
        self._host = job["host"].encode()
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.load_verify_locations(job["ca"] or os.environ["SSL_CERT_FILE"])
        self._context.set_verify(SSL.VERIFY_PEER)
        self._limit = asyncio.Semaphore(CONCURRENCY)

    async def one(self, kind: str) -> str:
        """One connection; returns what came of it."""
        async with self._limit:
            loop = asyncio.get_running_loop()
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                async with asyncio.timeout(PATIENCE):
                    await loop.sock_connect(sock, self._address)
                    wire = Wire(sock, self._context)
                    wire.tls.set_tlsext_host_name(self._host)
                    return await getattr(self, f"_{kind}")(wire)
            except (SSL.Error, OSError) as failure:
                return f"{kind}: {type(failure).__name__}"
            finally:
                sock.close()

    async def _talk(self, wire: Wire) -> str:
        await wire.handshake()
        request = b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % self._host
        await wire.send(request)
        assert wire.tls is not None
        shown = wire.tls.get_peer_certificate(as_cryptography=True)
        while await wire.recv():
            pass
        return "weir" if "Weir CA" in shown.issuer.rfc4514_string() else "origin"

    async def _touch(self, wire: Wire) -> str:
        return "touched"

    async def _cancel_early(self, wire: Wire) -> str:
        self._hello(wire)
        reset(wire.sock)
        return "cancelled"

    async def _cancel_late(self, wire: Wire) -> str:
        self._hello(wire)
        await asyncio.get_running_loop().sock_recv_into(wire.sock, bytearray(1))
        reset(wire.sock)
        return "cancelled"

    async def _check(self, wire: Wire) -> str:
        await wire.handshake()
        wire.end()
        return "checked"

    async def _ahead(self, wire: Wire) -> str:
        await wire.handshake()
        await asyncio.sleep(STAY)
        return await self._talk(wire)

    async def _ahead_unused(self, wire: Wire) -> str:
        await wire.handshake()
        await asyncio.sleep(STAY)
        return "unused"

    @staticmethod
    def _hello(wire: Wire) -> None:
        assert wire.tls is not None
        try:
            wire.tls.do_handshake()
        except SSL.WantReadError:
            return


async def work(job: dict[str, Any]) -> dict[str, int]:
    """All connections of a job at once, as many as may be."""
    clients = Clients(job)
    choice = random.Random(job["count"])
    kinds = [job["kind"] if job["kind"] != "harmless" else choice.choice(HARMLESS) for _ in range(job["count"])]
    return Counter(await asyncio.gather(*map(clients.one, kinds)))


def main() -> None:
    print("ready", flush=True)
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            print(json.dumps(runner.run(work(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
