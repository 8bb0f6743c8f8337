"""Probes: small clients that say exactly what they saw, so that a run under Weir can be compared with a direct one.

`python -m lab.probe PROBES.json RESULTS.json`. A probe is {id, kind, args, alone}; a result is {outcome, seconds}. What
is compared is the outcome; times are only told. `alone` probes run one after the other, the rest at once before them.
"""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from OpenSSL import SSL

from lab.probe_base import LONG, READ, Outcome, connected, context, maybe_tls, named, read_all, read_exactly
from lab.probe_tls import certificate, client_certificate, handshake, key_group, odd_hello
from lab.stream import blocks, digest
from lab.tls_stream import TLSStream

# Bodies.


def http_body(url_host: str, scheme: str, size: int, ca: str, direction: str) -> Outcome:
    """Download or upload `size` bytes; the outcome is the status, the length and the digest."""
    if scheme == "https":
        connection = http.client.HTTPSConnection(url_host, timeout=LONG, context=context(ca))
    else:
        connection = http.client.HTTPConnection(url_host, timeout=LONG)
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
            while part := response.read(READ):
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
    """Downloads at the same time on one HTTP/2 connection, then an upload.

    Uploads beside other streams are left out: httpcore waits for ever when another stream reads its window's update.
    """

    async def gather() -> Outcome:
        body = b"".join(blocks(size))
        async with httpx.AsyncClient(http2=True, http1=False, verify=context(ca), timeout=LONG) as client:
            responses = await asyncio.gather(*(client.get(f"https://{host}/bytes/{size}") for _ in range(streams)))
            responses.append(await client.post(f"https://{host}/digest", content=body))
            return dict(Counter(f"{r.http_version} {r.status_code} {digest([r.content])}" for r in responses))

    return asyncio.run(gather())


def tcp_body(address: str, port: int, size: int, direction: str) -> Outcome:
    """The same without a protocol: `up` ends with a half-close, and the origin answers the digest after it."""
    with connected(address, port, LONG) as sock:
        if direction == "down":
            sock.sendall(b"%d\n" % size)
            return digest(read_all(sock))
        for block in blocks(size):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(read_all(sock)).decode()


def tls_half_close(address: str, port: int, host: str, ca: str, size: int) -> Outcome:
    """Send all, then close_notify, then read the answer (RFC 8446, 6.1: each side closes on its own)."""
    with connected(address, port, 10) as sock, TLSStream(sock, host, ca) as tls:
        for block in blocks(size):
            tls.sendall(block)
        tls.close_notify()
        return b"".join(read_all(tls)).decode()


# Time.


def drops(address: str, port: int, host: str | None, ca: str) -> Outcome:
    """Read an answer that comes drop by drop: all of it, in more than one piece."""
    with connected(address, port, LONG) as sock, maybe_tls(sock, host, ca) as stream:
        stream.sendall(b"go\n")
        pieces = list(read_all(stream))
        return [b"".join(pieces).decode(), len(pieces) >= 3]


def slow_sender(address: str, port: int, host: str | None, ca: str) -> Outcome:
    """Send with pauses, and see each part come back before the next is sent."""
    with connected(address, port) as sock, maybe_tls(sock, host, ca) as stream:
        seen = []
        for number in range(4):
            part = b"part %d " % number
            stream.sendall(part)
            seen.append(read_exactly(stream, len(part)).decode())
            time.sleep(0.3)
        return seen


def banner(address: str, port: int, times: int) -> Outcome:
    """Wait for the server to speak first, and answer."""
    seen = Counter()
    for _ in range(times):
        with connected(address, port) as sock:
            line = sock.recv(READ)
            sock.sendall(b"QUIT\r\n")
            seen[(line + sock.recv(READ)).decode()] += 1
    return dict(seen)


# Many.


def short_connections(address: str, port: int, host: str | None, ca: str, number: int) -> Outcome:
    """Open `number` connections, say and hear a few bytes on each; the outcome counts what became of them."""
    shared = context(ca)

    def one(index: int) -> str:
        said = b"connection %d\n" % index
        try:
            with connected(address, port, 20) as sock:
                stream = shared.wrap_socket(sock, server_hostname=host) if host else sock
                with stream:
                    stream.sendall(said)
                    return "echoed" if read_exactly(stream, len(said)) == said else "garbled"
        except OSError as error:
            return named(error)

    with ThreadPoolExecutor(16) as pool:
        return dict(Counter(pool.map(one, range(number))))


# Failures.


def talk(address: str, port: int, host: str | None, ca: str, say: str) -> Outcome:
    """Connect, say something (or nothing), and read to the end: what was read, and how it ended."""
    heard = b""
    try:
        with connected(address, port) as sock, maybe_tls(sock, host, ca) as stream:
            if say:
                stream.sendall(say.encode())
            for part in read_all(stream):
                heard += part
    except OSError as error:
        return [heard.decode(), named(error)]
    return [heard.decode(), "end"]


_HANGS = 45

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


def _results(probes: list[dict[str, Any]], at_once: int) -> dict[str, dict[str, Any]]:
    """Run these; one that hangs is given up, and keeps its thread."""
    deadline = time.monotonic() + _HANGS
    pool = ThreadPoolExecutor(at_once)
    running = {probe["id"]: pool.submit(_run, probe) for probe in probes}
    results = {}
    for name, future in running.items():
        try:
            results[name] = future.result(max(deadline - time.monotonic(), 0))
        except TimeoutError:
            results[name] = {"outcome": f"failed: did not end in {_HANGS} s", "seconds": _HANGS}
    return results


def main(probes_file: str, results_file: str) -> None:
    probes = json.loads(Path(probes_file).read_text())
    results = _results([probe for probe in probes if not probe["alone"]], 16)
    for probe in probes:
        if probe["alone"]:
            results.update(_results([probe], 1))
    Path(results_file).write_text(json.dumps(results))
    # A thread that hangs would keep the process.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
