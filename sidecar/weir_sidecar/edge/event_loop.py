"""asyncio's loop over epoll(7), for who registers descriptors that come and go, and nothing else.

The standard library's selector takes any file object, and raises two exceptions and makes two messages for each that it does
not know yet; its loop looks each time for a transport that might have the descriptor. A connection comes with three, and
asks for or gives back each of them more than once: that was 25 µs of it.
"""

import asyncio
import math
import select
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from typing import Any

_NOT_READ, _NOT_WRITE = ~select.EPOLLIN, ~select.EPOLLOUT
_EPOLL_EVENTS = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)
"""By EVENT_READ | EVENT_WRITE."""


class EpollSelector(BaseSelector):
    """What `asyncio.SelectorEventLoop` asks of a selector, of descriptors alone, which is all that it registers."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, SelectorKey] = {}

    def fileno(self) -> int:
        """The descriptor of the epoll."""
        return self._epoll.fileno()

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Watch a descriptor that is not watched. Raises OSError, and TypeError for what has one."""
        if not isinstance(fileobj, int):
            raise TypeError(f"{fileobj!r} is no descriptor; give its fileno()")
        self._epoll.register(fileobj, _EPOLL_EVENTS[events])
        key = self._keys[fileobj] = SelectorKey(fileobj, fileobj, events, data)
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        """Watch it no more. Raises KeyError where it was not watched; one that is closed already is forgotten."""
        key = self._keys.pop(fileobj)
        try:  # noqa: SIM105 - on the path of every flow: suppress() costs as much as all else here
            self._epoll.unregister(fileobj)
        except OSError:
            pass
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Watch it for something else. Raises KeyError and OSError."""
        if events != self._keys[fileobj].events:
            self._epoll.modify(fileobj, _EPOLL_EVENTS[events])
        key = self._keys[fileobj] = SelectorKey(fileobj, fileobj, events, data)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Wait for `timeout` seconds at most, to the millisecond above; None: for ever."""
        seconds = -1 if timeout is None else 0 if timeout <= 0 else math.ceil(timeout * 1000) / 1000
        keys = self._keys
        ready = []
        for fd, event in self._epoll.poll(seconds, len(keys) or 1):
            key = keys.get(fd)
            if key is not None:
                events = (event & _NOT_WRITE and EVENT_READ) | (event & _NOT_READ and EVENT_WRITE)
                ready.append((key, events & key.events))
        return ready

    def close(self) -> None:
        """Close the epoll."""
        self._epoll.close()
        self._keys.clear()

    def get_key(self, fileobj: Any) -> SelectorKey:
        """Raises KeyError where it is not watched."""
        return self._keys[fileobj]

    def get_map(self) -> dict[Any, SelectorKey]:
        """All that are watched."""
        return self._keys


class EventLoop(asyncio.SelectorEventLoop):
    """The sidecar's loop."""

    def __init__(self) -> None:
        super().__init__(EpollSelector())

    def _ensure_fd_no_transport(self, fd: int) -> None:
        """There are no transports here. A later asyncio that does not ask is as right, only dearer."""
