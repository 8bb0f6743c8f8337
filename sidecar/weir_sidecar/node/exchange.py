"""One request of the plugin, from its bytes to its answer's: the other end of cni/shim.c, which has the format."""

import socket
import struct
from collections.abc import Callable

from weir_sidecar.node.cni import CNIError, Request, read_request, version_of

MAX_BYTES = 1 << 20
_PATIENCE = 5.0
_LENGTH = struct.Struct("!I")
_HEAD = struct.Struct("!II")


def serve(connection: socket.socket, answer: Callable[[Request], bytes]) -> None:
    """Read, answer, and send. Raises OSError: the plugin has gone away, or is none."""
    connection.settimeout(_PATIENCE)
    environment, stdin = _read_part(connection), _read_part(connection)
    try:
        status, text = 0, answer(read_request(environment, stdin))
    except CNIError as error:
        status, text = 1, error.render(version_of(stdin))
    connection.sendall(_HEAD.pack(status, len(text)) + text)


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
            raise ConnectionError(f"the request ends after {len(data)} of {length} bytes")
        data += more
    return bytes(data)
