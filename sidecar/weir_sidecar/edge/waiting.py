"""Waiting for sockets without streams or transports: one future, one registration a descriptor, bounded in time."""

import asyncio
import select
from collections.abc import Iterable
from socket import socket


async def wait_any(
    loop: asyncio.AbstractEventLoop,
    readable: Iterable[int] = (),
    writable: Iterable[int] = (),
    seconds: float | None = None,
) -> int | None:
    """Wait until one of the descriptors is ready; returns it, or None when `seconds` have passed."""
    future: asyncio.Future[int | None] = loop.create_future()
    timer = None if seconds is None else loop.call_later(max(seconds, 0.0), _wake, future, None)
    for fd in readable:
        loop.add_reader(fd, _wake, future, fd)
    for fd in writable:
        loop.add_writer(fd, _wake, future, fd)
    try:
        return await future
    finally:
        for fd in readable:
            loop.remove_reader(fd)
        for fd in writable:
            loop.remove_writer(fd)
        if timer is not None:
            timer.cancel()


def _wake(future: "asyncio.Future[int | None]", fd: int | None) -> None:
    if not future.done():
        future.set_result(fd)


def has_hung_up(sock: socket) -> bool:
    """Whether the peer has sent FIN or reset, also behind bytes that nobody has read yet (poll(2), POLLRDHUP)."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))
