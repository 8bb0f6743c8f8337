"""Beats reach both loopbacks from one connected socket each, and a port nobody listens on loses none."""

import asyncio
import socket
from contextlib import ExitStack, closing

import msgspec
import pytest

from weir_sidecar.contract.config import Heartbeat as Interval
from weir_sidecar.contract.config import Ports, SidecarConfig
from weir_sidecar.edge.heartbeat import Heartbeat


def receivers(stack):
    """UDP sockets on one free port of both loopbacks."""
    four = stack.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    four.bind(("127.0.0.1", 0))
    six = stack.enter_context(closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)))
    six.bind(("::1", four.getsockname()[1]))
    four.settimeout(5)
    six.settimeout(5)
    return four, six


def beating(port, interval=0.01):
    config = SidecarConfig(ports=Ports(heartbeat=port), heartbeat=Interval(interval=interval))
    loop = asyncio.new_event_loop()
    return loop, Heartbeat(loop, config)


def test_one_beat_reaches_both_families():
    with ExitStack() as stack:
        four, six = receivers(stack)
        loop, heart = beating(four.getsockname()[1])
        heart.beat_once()
        assert four.recv(16) == six.recv(16) == b"weir"
        heart.stop()
        loop.close()


def test_it_goes_on_beating_until_stopped():
    with ExitStack() as stack:
        four, six = receivers(stack)
        loop, heart = beating(four.getsockname()[1])
        heart.start()
        heart.start()  # once is enough
        loop.run_until_complete(asyncio.sleep(0.1))
        heart.stop()
        heart.stop()
        loop.run_until_complete(asyncio.sleep(0.03))
        loop.close()
        assert [four.recv(16) for _ in range(3)] == [six.recv(16) for _ in range(3)] == [b"weir"] * 3


class Recorded:
    """A socket whose sends fail as told."""

    def __init__(self, outcomes):
        self.outcomes = list(outcomes)
        self.sent = 0

    def send(self, data):
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome
        self.sent += 1
        return len(data)

    def close(self):
        pass


@pytest.mark.parametrize(
    ("outcomes", "sent", "missed"),
    [
        ([None], 1, 0),
        ([ConnectionRefusedError(), None], 1, 0),
        ([PermissionError()], 0, 0),
        ([OSError(105, "No buffer space available")] * 2, 0, 1),
    ],
)
def test_a_refusal_of_an_earlier_beat_does_not_cost_this_one(outcomes, sent, missed):
    loop, heart = beating(9)
    heart.stop()
    loop.close()
    fake = Recorded(outcomes)
    heart._sockets = (fake,)
    heart.beat_once()
    assert (fake.sent, heart.missed, fake.outcomes) == (sent, missed, [])


def test_a_port_that_nobody_listens_on_is_no_error():
    with ExitStack() as stack:
        port = receivers(stack)[0].getsockname()[1]
    loop, heart = beating(port)
    for _ in range(5):
        heart.beat_once()
    heart.stop()
    loop.close()
    assert heart.missed == 0
    assert msgspec.structs.asdict(Interval())["interval"] < Interval().timeout
