"""One request of the plugin, from its bytes to its answer's: the other end of cni/shim.c, which has the format."""

import socket
import struct
from collections.abc import Callable

from weir_sidecar.node.cni import CNIError, Code, Request, read_request, version_of

MAX_BYTES = 1 << 20
_PATIENCE = 5.0
_LENGTH = struct.Struct("!I")
_HEAD = struct.Struct("!II")


def serve(connection: socket.socket, answer: Callable[[Request], bytes]) -> tuple[Request, Code | None] | None:
    """Read, answer, and send. Says what was asked for and the error that was answered; None: nothing that could be read.

    Raises OSError: the plugin has gone away, or is none.
    """
    connection.settimeout(_PATIENCE)
    if not connection.recv(1, socket.MSG_PEEK):
        return None  # somebody looked whether we listen
    environment, stdin = _read_part(connection), _read_part(connection)
    try:
        request = read_request(environment, stdin)
    except CNIError as error:
        _send(connection, 1, error.render(version_of(stdin)))
        return None
    try:
        text = answer(request)
    except CNIError as error:
        _send(connection, 1, error.render(version_of(stdin)))
        return request, error.code
    _send(connection, 0, text)
    return request, None


def _send(connection: socket.socket, status: int, text: bytes) -> None:
    connection.sendall(_HEAD.pack(status, len(text)) + text)


def ask(connection: socket.socket, environment: bytes, stdin: bytes) -> int:
    """Ask as the plugin does, and say with what exit status it would end. Raises OSError."""
    connection.sendall(b"".join(_LENGTH.pack(len(part)) + part for part in (environment, stdin)))
    connection.shutdown(socket.SHUT_WR)
    status: int = _HEAD.unpack(_read(connection, _HEAD.size))[0]
    return status


def _read_part(connection: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
    if length > MAX_BYTES:
        raise ConnectionError(f"found a part of {length} bytes; {MAX_BYTES} are allowed")
    return _read(connection, length)


def _read(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise ConnectionError(f"it ends after {len(data)} of {length} bytes")
        data += more
    return bytes(data)
