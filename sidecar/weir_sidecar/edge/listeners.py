"""The sidecar's own listening sockets, and where a connection that reached one was going.

Made while the process may still make them (IP_TRANSPARENT needs NET_RAW or NET_ADMIN). Close-on-exec, so that a
listener dies with its proxy: that is what the dead-man's switch relies on. ip(7), ipv6(7), the kernel's tproxy.rst.
"""

import errno
import socket
import struct

import msgspec

from weir_sidecar.contract.config import CaptureMode, SidecarConfig

BACKLOG = 4096
# linux/in.h, linux/in6.h, linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h; not in Python's socket module.
IP_RECVORIGDSTADDR = 20
IPV6_RECVORIGDSTADDR = 74
_IPV6_TRANSPARENT = 75
_SO_ORIGINAL_DST = 80
_IP6T_SO_ORIGINAL_DST = 80
_SOCKADDR_IN = struct.Struct("!2xH4s8x")
_SOCKADDR_IN6 = struct.Struct("!2xH4x16s4x")


class ListenError(Exception):
    """A listener could not be made; the text says which, why, and what to do."""


class Listeners(msgspec.Struct, frozen=True):
    """One socket a family, non-blocking. `ipv6` is false where the machine has none: then there is only IPv4."""

    tcp: tuple[socket.socket, ...]
    udp: tuple[socket.socket, ...]
    ipv6: bool

    def close(self) -> None:
        """Close them all: new flows no longer find a listener."""
        for listener in (*self.tcp, *self.udp):
            listener.close()


def open_listeners(config: SidecarConfig) -> Listeners:
    """Open the TCP and UDP listeners of both families, as `config.capture.mode` needs them. Raises `ListenError`."""
    families = (socket.AF_INET, socket.AF_INET6) if has_ipv6() else (socket.AF_INET,)
    wanted = [(kind, family) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) for family in families]
    opened: list[socket.socket] = []
    try:
        for kind, family in wanted:
            opened.append(_open(config, kind, family))
    except ListenError:
        for listener in opened:
            listener.close()
        raise
    half = len(families)
    return Listeners(tcp=tuple(opened[:half]), udp=tuple(opened[half:]), ipv6=half == 2)


def original_destination(connection: socket.socket, config: SidecarConfig) -> tuple[str, int]:
    """Where the client of an accepted connection wanted to go: address and port.

    With TPROXY that is the socket's own name. With Redirect the connection tracking knows; a connection that it did
    not redirect was made to the proxy itself, and its destination is the proxy's own address.
    """
    if config.capture.mode is CaptureMode.REDIRECT:
        try:
            return _redirected(connection)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOPROTOOPT):
                raise
    address, port = connection.getsockname()[:2]
    return address, port


def _redirected(connection: socket.socket) -> tuple[str, int]:
    if connection.family == socket.AF_INET:
        found = connection.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size)
        port, address = _SOCKADDR_IN.unpack(found)
    else:
        found = connection.getsockopt(socket.IPPROTO_IPV6, _IP6T_SO_ORIGINAL_DST, _SOCKADDR_IN6.size)
        port, address = _SOCKADDR_IN6.unpack(found)
    return socket.inet_ntop(connection.family, address), port


def has_ipv6() -> bool:
    """Whether the kernel has IPv6 at all; `disable_ipv6` leaves it the wildcard address, which is all we bind."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC).close()
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return False
        raise
    return True


def _open(config: SidecarConfig, kind: socket.SocketKind, family: socket.AddressFamily) -> socket.socket:
    stream = kind == socket.SOCK_STREAM
    port = config.ports.tcp if stream else config.ports.udp
    wildcard = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104 - captured packets have any address
    listener = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        _set_options(listener, config.capture.mode)
        listener.bind((wildcard, port))
        if stream:
            listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        name = f"{'TCP' if stream else 'UDP'} listener {wildcard} port {port}"
        raise ListenError(f"{name}: {error.strerror}; {_advice(error, stream=stream)}") from error
    return listener


def _set_options(listener: socket.socket, mode: CaptureMode) -> None:
    transparent = mode is CaptureMode.TPROXY
    datagrams = listener.type == socket.SOCK_DGRAM
    if not datagrams:
        # After a restart, connections of the last process still have the port. Datagrams have no such thing, and with
        # this option anybody could bind the port beside us (socket(7)), take what is captured, and so open the switch.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET:
        if transparent:
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
        if datagrams:
            # The answer must leave from the address that was asked: the original destination, or with Redirect the
            # address that the packet was redirected to.
            listener.setsockopt(socket.IPPROTO_IP, IP_RECVORIGDSTADDR if transparent else socket.IP_PKTINFO, 1)
        return
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if transparent:
        listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    if datagrams:
        wanted = IPV6_RECVORIGDSTADDR if transparent else socket.IPV6_RECVPKTINFO
        listener.setsockopt(socket.IPPROTO_IPV6, wanted, 1)


def _advice(error: OSError, *, stream: bool) -> str:
    if error.errno == errno.EADDRINUSE:
        field = "ports.tcp" if stream else "ports.udp"
        return f"stop the program that has it (`ss -lnp` names it), or choose another `{field}`"
    if error.errno in (errno.EPERM, errno.EACCES):
        return "mode TPROXY needs the capability NET_RAW; grant it to the sidecar, or use mode Redirect"
    return "see ip(7) and ipv6(7)"
