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


class Readers:
    """Descriptors that are waited for again and again, each registered once.

    What is ready stays registered: nothing may be awaited before `release`, unless whoever comes next registers the
    same descriptors for itself, which costs no system call.
    """

    __slots__ = ("_fds", "_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._fds: list[int] = []
        self._future: asyncio.Future[int | None] | None = None

    async def wait(self, fds: Iterable[int], writable: int | None, seconds: float | None) -> int | None:
        """Wait until one of `fds` can be read or `writable` be written; returns it, or None after `seconds`."""
        future: asyncio.Future[int | None] = self._loop.create_future()
        self._future = future
        for fd in fds:
            if fd not in self._fds:
                self._fds.append(fd)
                self._loop.add_reader(fd, self._ready, fd)
        if writable is not None:
            self._loop.add_writer(writable, self._ready, writable)
        timer = None if seconds is None else self._loop.call_later(max(seconds, 0.0), _wake, future, None)
        try:
            return await future
        finally:
            if writable is not None:
                self._loop.remove_writer(writable)
            if timer is not None:
                timer.cancel()

    def release(self) -> None:
        """Wait for none of them any more."""
        for fd in self._fds:
            self._loop.remove_reader(fd)
        self._fds.clear()

    def hand_over(self) -> None:
        """Somebody else has registered all of them."""
        self._fds.clear()

    def _ready(self, fd: int) -> None:
        assert self._future is not None
        _wake(self._future, fd)


def _wake(future: "asyncio.Future[int | None]", fd: int | None) -> None:
    if not future.done():
        future.set_result(fd)


def has_hung_up(sock: socket) -> bool:
    """Whether the peer has sent FIN or reset, also behind bytes that nobody has read yet (poll(2), POLLRDHUP)."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))
