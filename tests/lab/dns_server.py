"""Resolvers for tests, on loopback, scripted by the test: they receive what was asked and answer what they are told."""

import asyncio
import socket
from typing import Self

import dns.message
import dns.rrset


class UDPServer:
    """One bound UDP socket, driven by the test."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.bind((address, 0))
        self.address = self.sock.getsockname()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.sock.close()

    async def asked(self) -> tuple[bytes, tuple]:
        """The next query and where it came from."""
        await until(lambda: not self.quiet())
        return self.sock.recvfrom(65535)

    def quiet(self) -> bool:
        """Whether nothing waits to be read."""
        try:
            self.sock.recv(65535, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False


def question(name: str = "www.example.test.", rdtype: str = "A", **options) -> bytes:
    return dns.message.make_query(name, rdtype, **options).to_wire()


def reply(query: bytes, *records: str) -> bytes:
    """An answer to `query` with `records` as "TTL TYPE RDATA", all owned by the name that was asked."""
    message = dns.message.make_response(dns.message.from_wire(query))
    name = message.question[0].name
    for record in records:
        ttl, rdtype, rdata = record.split(maxsplit=2)
        message.answer.append(dns.rrset.from_text(name, int(ttl), "IN", rdtype, rdata))
    return message.to_wire()


async def until(condition) -> None:
    """Let the loop run until `condition` holds; fails after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is about a socket
            await asyncio.sleep(0.001)
