"""The heartbeat that keeps the dead-man's switch closed: a datagram to loopback, from the loop that serves traffic.

A rule on OUTPUT sees the datagram by the proxy's UID and the port, and renews the switch for its family. Nobody
listens on the port. A stalled loop sends nothing, which is the point.
"""

import asyncio
import socket

from weir_sidecar.contract.config import SidecarConfig

_BEAT = b"weir"
_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class Heartbeat:
    """Beats on both families each `config.heartbeat.interval` seconds between `start` and `stop`.

    A family that the machine does not have (IPv6 off) has no beat and needs none. `missed` counts datagrams the
    kernel refused.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, config: SidecarConfig) -> None:
        self._loop = loop
        self._interval = config.heartbeat.interval
        self._sockets = _open(config.ports.heartbeat)
        self._timer: asyncio.TimerHandle | None = None
        self.missed = 0

    def beat_once(self) -> None:
        """Send one beat on each family now."""
        for beat in self._sockets:
            # Nobody listens, so an earlier datagram's ICMP error may be waiting: it makes one send fail and is then
            # gone. The second send is the one that goes out. EPERM (a rule dropped it after seeing it) is no loss.
            if not (_sent(beat) or _sent(beat)):
                self.missed += 1

    def start(self) -> None:
        """Beat now and from now on."""
        if self._timer is None:
            self._beat()

    def stop(self) -> None:
        """Stop beating and close the sockets: the switch opens after its timeout. There is no second start."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for beat in self._sockets:
            beat.close()
        self._sockets = ()

    def _beat(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._beat)
        self.beat_once()


def _open(port: int) -> tuple[socket.socket, ...]:
    """Connected sockets, one a family: a connected socket takes no datagram from strangers."""
    sockets: list[socket.socket] = []
    for family, address in _LOOPBACK:
        beat: socket.socket | None = None
        try:
            beat = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            beat.connect((address, port))
        except OSError:
            if beat is not None:
                beat.close()
            if family == socket.AF_INET:
                raise  # a machine without 127.0.0.1 cannot run a sidecar
            continue
        sockets.append(beat)
    return tuple(sockets)


def _sent(beat: socket.socket) -> bool:
    try:
        beat.send(_BEAT)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
