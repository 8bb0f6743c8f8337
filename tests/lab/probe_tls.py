"""Probes of TLS itself: odd ClientHellos, client certificates, what is shown and what is agreed on."""

import contextlib
import http.client
import ssl
import time
from collections.abc import Callable
from typing import Any

from lab.probe_base import READ, Outcome, connected, context, named
from lab.stream import digest
from lab.tls_stream import TLSStream


def odd_hello(address: str, host: str, ca: str, segments: int, alpn: list[str]) -> Outcome:
    """A handshake whose ClientHello goes out in `segments` pieces with pauses; `alpn` makes it as large as one likes."""
    made = context(ca)
    made.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = made.wrap_bio(incoming, outgoing, server_hostname=host)
    with connected(address, 443, 10) as sock:

        def step(call: Callable[[], Any]) -> Any:
            while True:
                try:
                    return call()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(READ))

        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        cut = -(-len(hello) // segments)
        for start in range(0, len(hello), cut):
            sock.sendall(hello[start : start + cut])
            time.sleep(0.1 if segments > 1 else 0)
        step(tls.do_handshake)
        tls.write(f"GET /hello HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        sock.sendall(outgoing.read())
        answer = b""
        while len(answer) < 600:
            answer += step(lambda: tls.read(READ))
        return [len(hello) > 16384, tls.version(), tls.selected_alpn_protocol(), answer.decode()]


def client_certificate(host: str, ca: str, certificate: str | None) -> Outcome:
    """GET from an origin that requires a client's certificate, with one or without."""
    made = context(ca)
    if certificate:
        made.load_cert_chain(certificate)
    connection = http.client.HTTPSConnection(host, timeout=10, context=made)
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/hello")
            response = connection.getresponse()
            return [response.status, digest([response.read()])]
    except OSError as error:
        # Which of the two a client sees is a race between its request and the origin's alert.
        return "refused" if isinstance(error, ssl.SSLError | ConnectionResetError) else named(error)


def certificate(address: str, host: str | None, target: str, ca: str) -> Outcome:
    """What a client that verifies gets, and what one that does not is shown.

    The outcome: `verified` says whether the handshake and the check of the name succeeded; `shown` is the certificate,
    in hex, that a client sees that checks nothing (null: the handshake failed for it, too).
    """
    return {"verified": _verified(address, target, ca), "shown": _shown(address, host)}


def _verified(address: str, target: str, ca: str) -> bool | str:
    try:
        with connected(address, 443, 10) as sock, context(ca).wrap_socket(sock, server_hostname=target) as tls:
            return bool(tls.getpeercert())
    except OSError as error:
        return named(error)


def _shown(address: str, host: str | None) -> str | None:
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    careless.set_ciphers("DEFAULT:@SECLEVEL=0")
    try:
        with connected(address, 443, 10) as sock, careless.wrap_socket(sock, server_hostname=host) as tls:
            der = tls.getpeercert(binary_form=True)
            return der.hex() if der else None
    except OSError:
        return None


def key_group(host: str, ca: str) -> Outcome:
    """The group that a client with a current OpenSSL agrees on."""
    with connected(host, 443, 10) as sock, TLSStream(sock, host, ca) as tls:
        return tls.group


def handshake(
    host: str,
    ca: str,
    least: int,
    most: int,
    *,
    alpn: tuple[str, ...] = ("http/1.1",),
    ciphers: str | None = None,
) -> Outcome:
    """The version and ALPN that a handshake between `least` and `most` (TLS version numbers) agrees on."""
    made = context(ca, minimum_version=ssl.TLSVersion(least), maximum_version=ssl.TLSVersion(most))
    made.set_alpn_protocols(list(alpn))
    if ciphers:
        made.set_ciphers(ciphers)
    try:
        with connected(host, 443, 10) as sock, made.wrap_socket(sock, server_hostname=host) as tls:
            tls.sendall(b"")
            return [tls.version(), tls.selected_alpn_protocol()]
    except OSError as error:
        return named(error)
