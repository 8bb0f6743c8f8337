"""Probes: small clients that say exactly what they saw, so that a run under Weir can be compared with a direct one.

`python -m lab.probe PROBES.json RESULTS.json`. A probe is {id, kind, args, alone}; a result is {outcome, seconds}. What
is compared is the outcome; times are only told. `alone` probes run one after the other, the rest at once before them.
"""

import asyncio
import contextlib
import errno
import http.client
import json
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from OpenSSL import SSL

from lab.stream import blocks, digest
from lab.tls_stream import BareEndError, TLSStream

type Outcome = Any
type Stream = socket.socket | TLSStream

_READ = 256 * 1024
PATIENCE = 2.0
"""Seconds after which a client here gives up on an answer."""
_LONG = 120.0


def context(ca: str, **options: Any) -> ssl.SSLContext:
    """A good client's context: the environment's roots, and the lab's."""
    made = ssl.create_default_context()
    made.load_verify_locations(ca)
    # A name in the subject alone is no name (RFC 9525, 6.4.4).
    made.hostname_checks_common_name = False
    for name, value in options.items():
        setattr(made, name, value)
    return made


@contextlib.contextmanager
def _connected(address: str, port: int, timeout: float = PATIENCE) -> Iterator[socket.socket]:
    with socket.create_connection((address, port), timeout=timeout) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sock


def _read_all(sock: Stream) -> Iterator[bytes]:
    while data := sock.recv(_READ):
        yield data


def _read_exactly(sock: Stream, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := sock.recv(size - len(data))):
        data += part
    return data


# Bodies.


def http_body(url_host: str, scheme: str, size: int, ca: str, direction: str) -> Outcome:
    """Download or upload `size` bytes; the outcome is the status, the length and the digest."""
    if scheme == "https":
        connection = http.client.HTTPSConnection(url_host, timeout=_LONG, context=context(ca))
    else:
        connection = http.client.HTTPConnection(url_host, timeout=_LONG)
    with contextlib.closing(connection):
        if direction == "down":
            connection.request("GET", f"/bytes/{size}")
        else:
            connection.request("POST", "/digest", body=blocks(size), headers={"content-length": str(size)})
        response = connection.getresponse()
        if direction == "up":
            return [response.status, response.read().decode()]
        length = 0

        def parts() -> Iterator[bytes]:
            nonlocal length
            while part := response.read(_READ):
                length += len(part)
                yield part

        found = digest(parts())
        return [response.status, length, found]


def http1_dialogue(host: str, ca: str) -> Outcome:
    """Several requests of different kinds, one after the other on one connection."""
    connection = http.client.HTTPSConnection(host, timeout=10, context=context(ca))
    requests: list[tuple[str, str, Any]] = [
        ("GET", "/hello", None),
        ("HEAD", "/hello", None),
        ("POST", "/digest", iter([b"in ", b"chunks"])),
        ("GET", "/status/404", None),
        ("GET", "/slow", None),
    ]
    heard = []
    with contextlib.closing(connection):
        for method, path, body in requests:
            connection.request(method, path, body=body, encode_chunked=True)
            response = connection.getresponse()
            heard.append([response.status, sorted(response.getheaders()), response.read().decode()])
    return heard


def http2_streams(host: str, ca: str, streams: int, size: int) -> Outcome:
    """Downloads and uploads at the same time on one HTTP/2 connection."""

    async def gather() -> Outcome:
        body = b"".join(blocks(size))
        async with httpx.AsyncClient(http2=True, http1=False, verify=context(ca), timeout=_LONG) as client:
            down = [client.get(f"https://{host}/bytes/{size}") for _ in range(streams)]
            up = [client.post(f"https://{host}/digest", content=body) for _ in range(streams)]
            responses = await asyncio.gather(*down, *up)
            return dict(Counter(f"{r.http_version} {r.status_code} {digest([r.content])}" for r in responses))

    return asyncio.run(gather())


def tcp_body(address: str, port: int, size: int, direction: str) -> Outcome:
    """The same without a protocol: `up` ends with a half-close, and the origin answers the digest after it."""
    with _connected(address, port, _LONG) as sock:
        if direction == "down":
            sock.sendall(b"%d\n" % size)
            return digest(_read_all(sock))
        for block in blocks(size):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(_read_all(sock)).decode()


def tls_half_close(address: str, port: int, host: str, ca: str, size: int) -> Outcome:
    """Send all, then close_notify, then read the answer (RFC 8446, 6.1: each side closes on its own)."""
    with _connected(address, port, 10) as sock, TLSStream(sock, host, ca) as tls:
        for block in blocks(size):
            tls.sendall(block)
        tls.close_notify()
        return b"".join(_read_all(tls)).decode()


# Time.


def drops(address: str, port: int, host: str | None, ca: str) -> Outcome:
    """Read an answer that comes drop by drop: all of it, in more than one piece."""
    with _connected(address, port, _LONG) as sock, _maybe_tls(sock, host, ca) as stream:
        stream.sendall(b"go\n")
        pieces = list(_read_all(stream))
        return [b"".join(pieces).decode(), len(pieces) >= 3]


def slow_sender(address: str, port: int, host: str | None, ca: str) -> Outcome:
    """Send with pauses, and see each part come back before the next is sent."""
    with _connected(address, port) as sock, _maybe_tls(sock, host, ca) as stream:
        seen = []
        for number in range(4):
            part = b"part %d " % number
            stream.sendall(part)
            seen.append(_read_exactly(stream, len(part)).decode())
            time.sleep(0.3)
        return seen


def banner(address: str, port: int, times: int) -> Outcome:
    """Wait for the server to speak first, and answer."""
    seen = Counter()
    for _ in range(times):
        with _connected(address, port) as sock:
            line = sock.recv(_READ)
            sock.sendall(b"QUIT\r\n")
            seen[(line + sock.recv(_READ)).decode()] += 1
    return dict(seen)


def _maybe_tls(sock: socket.socket, host: str | None, ca: str) -> Stream:
    return TLSStream(sock, host, ca) if host else sock


# Many.


def short_connections(address: str, port: int, host: str | None, ca: str, number: int) -> Outcome:
    """Open `number` connections, say and hear a few bytes on each; the outcome counts what became of them."""
    shared = context(ca)

    def one(index: int) -> str:
        said = b"connection %d" % index
        try:
            with _connected(address, port, 20) as sock:
                stream = shared.wrap_socket(sock, server_hostname=host) if host else sock
                with stream:
                    stream.sendall(said)
                    return "echoed" if _read_exactly(stream, len(said)) == said else "garbled"
        except OSError as error:
            return _named(error)

    with ThreadPoolExecutor(16) as pool:
        return dict(Counter(pool.map(one, range(number))))


# ClientHellos.


def odd_hello(address: str, host: str, ca: str, segments: int, alpn: list[str]) -> Outcome:
    """A handshake whose ClientHello goes out in `segments` pieces with pauses; `alpn` makes it as large as one likes."""
    made = context(ca)
    made.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = made.wrap_bio(incoming, outgoing, server_hostname=host)
    with _connected(address, 443, 10) as sock:

        def step(call: Callable[[], Any]) -> Any:
            while True:
                try:
                    return call()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(_READ))

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
            answer += step(lambda: tls.read(_READ))
        return [len(hello) > 16384, tls.version(), tls.selected_alpn_protocol(), answer.decode()]


# Failures.


def _named(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, BareEndError):
        return "bare end"
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason}"
    return errno.errorcode.get(error.errno or 0, str(error))


def talk(address: str, port: int, host: str | None, ca: str, say: str) -> Outcome:
    """Connect, say something (or nothing), and read to the end: what was read, and how it ended."""
    heard = b""
    try:
        with _connected(address, port) as sock, _maybe_tls(sock, host, ca) as stream:
            if say:
                stream.sendall(say.encode())
            for part in _read_all(stream):
                heard += part
    except OSError as error:
        return [heard.decode(), _named(error)]
    return [heard.decode(), "end"]


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
        return "refused" if isinstance(error, ssl.SSLError | ConnectionResetError) else _named(error)


# Certificates.


def certificate(address: str, host: str | None, target: str, ca: str) -> Outcome:
    """What a client that verifies gets, and what one that does not is shown.

    The outcome: `verified` says whether the handshake and the check of the name succeeded; `shown` is the certificate,
    in hex, that a client sees that checks nothing (null: the handshake failed for it, too).
    """
    return {"verified": _verified(address, target, ca), "shown": _shown(address, host)}


def _verified(address: str, target: str, ca: str) -> bool | str:
    try:
        with _connected(address, 443, 10) as sock, context(ca).wrap_socket(sock, server_hostname=target) as tls:
            return bool(tls.getpeercert())
    except OSError as error:
        return _named(error)


def _shown(address: str, host: str | None) -> str | None:
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    careless.set_ciphers("DEFAULT:@SECLEVEL=0")
    try:
        with _connected(address, 443, 10) as sock, careless.wrap_socket(sock, server_hostname=host) as tls:
            der = tls.getpeercert(binary_form=True)
            return der.hex() if der else None
    except OSError:
        return None


def key_group(host: str, ca: str) -> Outcome:
    """The group that a client with a current OpenSSL agrees on."""
    with _connected(host, 443, 10) as sock, TLSStream(sock, host, ca) as tls:
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
        with _connected(host, 443, 10) as sock, made.wrap_socket(sock, server_hostname=host) as tls:
            tls.sendall(b"")
            return [tls.version(), tls.selected_alpn_protocol()]
    except OSError as error:
        return _named(error)


KINDS: dict[str, Callable[..., Outcome]] = {
    made.__name__: made
    for made in (
        http_body,
        http1_dialogue,
        http2_streams,
        tcp_body,
        tls_half_close,
        drops,
        slow_sender,
        banner,
        short_connections,
        odd_hello,
        talk,
        client_certificate,
        certificate,
        handshake,
        key_group,
    )
}


def _run(probe: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    try:
        outcome = KINDS[probe["kind"]](**probe["args"])
    except (OSError, SSL.Error, http.client.HTTPException, httpx.HTTPError) as error:
        outcome = f"failed: {type(error).__name__}: {error}"
    return {"outcome": outcome, "seconds": time.monotonic() - started}


def main(probes_file: str, results_file: str) -> None:
    probes = json.loads(Path(probes_file).read_text())
    together = [probe for probe in probes if not probe["alone"]]
    alone = [probe for probe in probes if probe["alone"]]
    with ThreadPoolExecutor(16) as pool:
        results = dict(zip([probe["id"] for probe in together], pool.map(_run, together), strict=True))
    results.update({probe["id"]: _run(probe) for probe in alone})
    Path(results_file).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
