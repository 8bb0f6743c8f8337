"""The agent's end of the hand-over: opens what a pod's sidecar asks for, in the pod's namespaces, as the proxy's user.

It gives to the pod's sidecar alone (`contract.handover`). What it gives is worth less than NET_RAW in the pod: who holds it can
send from addresses that are not the pod's, and by raw sockets, and the rules of a pod that is set up like this keep such
packets on loopback (`netfilter.ruleset`); no socket sees what other users send (`edge.socket_filter`).
"""

import errno
import os
import socket
import struct
from hmac import compare_digest

import msgspec

from weir_sidecar.contract import handover
from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.edge.icmp import Unreachable
from weir_sidecar.edge.listeners import ListenError, open_listeners
from weir_sidecar.edge.reply_sockets import transparent_socket
from weir_sidecar.edge.syn_tap import SynTap
from weir_sidecar.node import namespaces
from weir_sidecar.node.records import Record, Records

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


def serve(connection: socket.socket, netns: int, record: Record, records: Records) -> None:
    """Answer one request. In a child of its own: it does not come back from the pod's namespaces. Raises OSError."""
    connection.settimeout(_PATIENCE)
    config = record.config
    namespaces.enter_owner(netns)
    if peer_uid(connection) != config.identity.uid:
        return
    try:
        request = _hear(connection, record.container_id, records)
        namespaces.enter_network(netns)
        namespaces.create_as(config.identity.uid)
        sockets = _open(request, config)
    except ListenError as error:
        _refuse(connection, str(error), errno.EADDRINUSE)
    except OSError as error:
        _refuse(connection, error.strerror or str(error), error.errno or errno.EIO)
        if error.errno == errno.EKEYREJECTED:
            raise  # the agent tells of it
    else:
        message = msgspec.json.encode(handover.Answer())
        socket.send_fds(connection, [message], [one.fileno() for one in sockets])


def _hear(connection: socket.socket, container_id: str, records: Records) -> handover.Request:
    """The request, if it is the pod's sidecar's. Raises OSError."""
    nonce = os.urandom(handover.NONCE_BYTES)
    connection.send(nonce)
    message = connection.recv(handover.MAX_BYTES)
    text = handover.request_of(message)
    try:
        request: handover.Request = msgspec.json.decode(text, type=handover.Request)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise OSError(errno.EINVAL, f"the request cannot be read: {error}") from error
    claimed = records.key(container_id)
    key = request.key if claimed is None and isinstance(request, handover.Claim) else claimed
    if key is None:
        raise OSError(errno.ENOKEY, "nobody has claimed this pod yet")
    if not compare_digest(message, handover.seal(key, nonce, text)):
        raise OSError(
            errno.EKEYREJECTED,
            "sockets are wanted by a process with the proxy's user that has not the key with which the pod was claimed",
        )
    if claimed is None:
        records.claim(container_id, key)
    return request


def _open(request: handover.Request, config: SidecarConfig) -> list[socket.socket]:
    match request:
        case handover.Claim():
            return []
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
