"""The sockets that take a capability to open: by this process itself, or by the node's agent (`edge.handed_over`)."""

import errno
from socket import socket
from typing import Protocol

import msgspec

from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.edge.icmp import Sockaddr, Unreachable
from weir_sidecar.edge.listeners import Listeners, open_listeners
from weir_sidecar.edge.reply_sockets import transparent_socket
from weir_sidecar.edge.syn_tap import SynTap


class Sockets(Protocol):
    """Opens them. Each raises OSError, and the first `ListenError`, for what cannot be opened."""

    def listeners(self) -> Listeners:
        """Of both families, as the config's mode needs them."""

    def tap(self) -> SynTap:
        """What sees SYNs that are held."""

    def unreachable(self) -> Unreachable:
        """What tells clients of errors."""

    def reply(self, source: Sockaddr) -> socket:
        """A UDP socket bound to `source`, which need not be an address of this host."""


class NoSockets:
    """For a pod that has no rules, and runs all the same: nothing comes that could be served."""

    def listeners(self) -> Listeners:
        """See `Sockets`."""
        return Listeners(tcp=(), udp=(), ipv6=False)

    def tap(self) -> SynTap:
        """See `Sockets`. Nobody asks."""
        raise OSError(errno.EPERM, "this pod has no rules that would hold a SYN")

    def unreachable(self) -> Unreachable:
        """See `Sockets`."""
        return Unreachable({})

    def reply(self, source: Sockaddr) -> socket:  # noqa: ARG002
        """See `Sockets`. Nobody asks."""
        raise OSError(errno.EPERM, "this pod has no rules that would bring a datagram")


class OwnSockets(msgspec.Struct, frozen=True):
    """With this process's own NET_RAW, and NET_BIND_SERVICE for replies from port 53."""

    config: SidecarConfig

    def listeners(self) -> Listeners:
        """See `Sockets`."""
        return open_listeners(self.config)

    def tap(self) -> SynTap:
        """See `Sockets`."""
        return SynTap.open(self.config.marks)

    def unreachable(self) -> Unreachable:
        """See `Sockets`."""
        return Unreachable.open()

    def reply(self, source: Sockaddr) -> socket:
        """See `Sockets`."""
        return transparent_socket(source)
