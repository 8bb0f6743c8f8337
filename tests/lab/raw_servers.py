"""Origins that are not the web: banners, echoes, sinks, and those that misbehave. Each is a function of one socket."""

import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path

from lab.stream import blocks, digest

type Handler = Callable[[socket.socket], None]

_READ = 256 * 1024
BANNER = b"220 mail.weir.test ESMTP lab\r\n"


def reset(sock: socket.socket) -> None:
    """Close with RST: nothing lingers (socket(7), SO_LINGER)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def banner(sock: socket.socket) -> None:
    """Speaks first, as SMTP does, then answers one line."""
    sock.sendall(BANNER)
    sock.recv(_READ)
    sock.sendall(b"221 bye\r\n")


def echo(sock: socket.socket) -> None:
    while data := sock.recv(_READ):
        sock.sendall(data)


def sink(sock: socket.socket) -> None:
    """Reads to the client's end, then answers with the digest of all: works only where half-close does."""

    def parts():
        while data := sock.recv(_READ):
            yield data

    sock.sendall(digest(parts()).encode())


def source(sock: socket.socket) -> None:
    """Reads a line with a number, sends that many bytes, and ends."""
    for block in blocks(int(sock.recv(64) or b"0")):
        sock.sendall(block)


def slow(sock: socket.socket) -> None:
    """Reads one line, and answers drop by drop."""
    sock.recv(_READ)
    for number in range(5):
        time.sleep(0.2)
        sock.sendall(b"drop %d\n" % number)


def reset_at_once(sock: socket.socket) -> None:
    reset(sock)


def reset_after_request(sock: socket.socket) -> None:
    sock.recv(_READ)
    reset(sock)


def reset_in_answer(sock: socket.socket) -> None:
    sock.recv(_READ)
    sock.sendall(b"half an ans")
    time.sleep(0.2)
    reset(sock)


def silent(sock: socket.socket) -> None:
    """Reads for ever and never answers."""
    while sock.recv(_READ):
        pass


PLAIN: dict[int, Handler] = {
    7: echo,
    9: sink,
    19: source,
    25: banner,
    4001: reset_at_once,
    4002: reset_after_request,
    4003: reset_in_answer,
    4004: silent,
    4005: slow,
    31337: echo,
}
"""Port and behaviour of the plain origins; the same behind TLS on `TLS_OFFSET` more."""

TLS_OFFSET = 10000
NO_HANDSHAKE = 4099
"""Accepts, reads, and never answers a ClientHello."""
CLOSED = 1
"""A port where nobody listens."""


def context(certificate: Path, version: ssl.TLSVersion | None = None, *, weak: bool = False) -> ssl.SSLContext:
    """A server's context, for one version of TLS or all from 1.2."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = version or ssl.TLSVersion.TLSv1_2
    if version:
        made.maximum_version = version
    # Unless it is to be weak, what the best of origins offer: then nothing weak that a scan finds can be the origin's.
    made.set_ciphers("ALL:@SECLEVEL=0" if weak else "ECDHE+AESGCM:ECDHE+CHACHA20")
    made.load_cert_chain(certificate)
    return made
