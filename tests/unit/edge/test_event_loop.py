"""The selector beside the standard library's, asked the same; and the loop with it."""

import asyncio
import os
import selectors
import signal
import socket
from selectors import EVENT_READ, EVENT_WRITE

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.edge.event_loop import EpollSelector, EventLoop

BOTH = EVENT_READ | EVENT_WRITE


class Watched:
    """Socket pairs in different states, watched by one selector."""

    def __init__(self, selector):
        self.selector = selector
        self.pairs = [socket.socketpair() for _ in range(4)]
        for near, _ in self.pairs:
            near.setblocking(False)
        self.pairs[1][1].send(b"x")
        self.pairs[2][1].close()
        self.pairs[3][1].shutdown(socket.SHUT_WR)

    def close(self):
        self.selector.close()
        for pair in self.pairs:
            for one in pair:
                one.close()

    def do(self, step):
        """One call, and what it says; descriptors as the numbers of their pairs."""
        action, number, events = step
        fd = self.pairs[number][0].fileno()
        call = {
            "register": lambda: self.selector.register(fd, events, number),
            "modify": lambda: self.selector.modify(fd, events, -number),
            "unregister": lambda: self.selector.unregister(fd),
            "key": lambda: self.selector.get_key(fd),
        }[action]
        try:
            key = call()
        except (KeyError, OSError) as error:
            return type(error)
        return number, key.events, key.data

    def ready(self):
        names = {near.fileno(): number for number, (near, _) in enumerate(self.pairs)}
        return sorted((names[key.fd], key.data, events) for key, events in self.selector.select(0))


def no_second_registration(steps):
    """asyncio asks before it registers; the two differ in what they raise otherwise."""
    known = set()
    for action, number, _ in steps:
        if action == "register":
            if number in known:
                return False
            known.add(number)
        elif action == "unregister":
            known.discard(number)
    return True


STEP = st.tuples(
    st.sampled_from(["register", "modify", "unregister", "key"]),
    st.integers(0, 3),
    st.sampled_from([EVENT_READ, EVENT_WRITE, BOTH]),
)


@given(st.lists(STEP, max_size=12).filter(no_second_registration))
def test_it_says_what_the_standard_librarys_says(steps):
    ours, theirs = Watched(EpollSelector()), Watched(selectors.EpollSelector())
    try:
        for step in steps:
            assert ours.do(step) == theirs.do(step)
            assert ours.ready() == theirs.ready()
    finally:
        ours.close()
        theirs.close()


def test_a_descriptor_that_was_closed_first_is_forgotten():
    watched = Watched(EpollSelector())
    near = watched.pairs[1][0]
    watched.selector.register(near.fileno(), EVENT_READ)
    fd = near.detach()
    socket.socket(fileno=fd).close()
    assert watched.selector.unregister(fd).fd == fd
    assert fd not in watched.selector.get_map()
    watched.close()


def test_what_has_a_descriptor_is_none():
    """It would be watched under another name than the one that epoll tells, and never be heard of."""
    watched = Watched(EpollSelector())
    with pytest.raises(TypeError, match="is no descriptor"):
        watched.selector.register(watched.pairs[0][0], EVENT_READ)
    watched.close()


def test_the_loop_waits_wakes_and_ends():
    async def main():
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EventLoop)
        near, far = socket.socketpair()
        near.setblocking(False)
        loop.call_later(0.01, far.sendall, b"later")
        assert await loop.sock_recv(near, 100) == b"later"
        heard = loop.create_future()
        loop.add_reader(near.fileno(), heard.set_result, None)
        loop.call_soon_threadsafe(far.sendall, b"more")
        await asyncio.wait_for(heard, 5)
        assert loop.remove_reader(near.fileno())
        assert not loop.remove_reader(near.fileno())
        assert not loop.remove_writer(near.fileno())
        near.close()
        far.close()

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(main())


def test_the_loop_hears_signals():
    async def main():
        heard = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.set_result, None)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(heard, 5)

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(main())
