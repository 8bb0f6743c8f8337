"""The agent's end of the hand-over: opens what a pod's sidecar asks for, in the pod's namespaces, as the proxy's user.

What is handed over is what NET_RAW in the pod would be good for, and no more: who holds it can send from addresses that are
not the pod's, so the rules of a pod that is set up like this keep such packets on loopback (`netfilter.ruleset`).
"""

import errno
import socket
import struct

import msgspec

from weir_sidecar.contract import handover
from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.edge.icmp import Unreachable
from weir_sidecar.edge.listeners import ListenError, open_listeners
from weir_sidecar.edge.reply_sockets import transparent_socket
from weir_sidecar.edge.syn_tap import SynTap
from weir_sidecar.node import namespaces

_PATIENCE = 2.0
_BACKLOG = 16
_CREDENTIALS = struct.Struct("=iII")


def listen() -> socket.socket:
    """The hand-over socket, in the network namespace that this process is in. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.bind(handover.ADDRESS)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def peer_uid(connection: socket.socket) -> int:
    """Who connected, as this process's user namespace counts."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(found)[1]
    return uid


def serve(connection: socket.socket, netns: int, config: SidecarConfig) -> None:
    """Answer one request. In a child of its own: it does not come back from the pod's namespaces. Raises OSError."""
    connection.settimeout(_PATIENCE)
    namespaces.enter_owner(netns)
    if peer_uid(connection) != config.identity.uid:
        return
    namespaces.enter_network(netns)
    namespaces.create_as(config.identity.uid)
    try:
        request = msgspec.json.decode(connection.recv(handover.MAX_BYTES), type=handover.Request)
    except (msgspec.MsgspecError, UnicodeError) as error:
        _refuse(connection, f"the request cannot be read: {error}", errno.EINVAL)
        return
    try:
        sockets = _open(request, config)
    except ListenError as error:
        _refuse(connection, str(error), errno.EADDRINUSE)
    except OSError as error:
        _refuse(connection, f"{request}: {error.strerror}", error.errno or errno.EIO)
    else:
        message = msgspec.json.encode(handover.Answer())
        socket.send_fds(connection, [message], [one.fileno() for one in sockets])


def _open(request: handover.Request, config: SidecarConfig) -> list[socket.socket]:
    match request:
        case handover.Listeners():
            listeners = open_listeners(config)
            return [*listeners.tcp, *listeners.udp]
        case handover.Unreachable():
            return list(Unreachable.open().sockets)
        case handover.Tap():
            return list(SynTap.open(config.marks).raw.values())
        case handover.Reply(address, port):
            return [transparent_socket((address, port))]


def _refuse(connection: socket.socket, text: str, number: int) -> None:
    connection.send(msgspec.json.encode(handover.Answer(text, number)))
