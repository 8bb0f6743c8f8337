"""All origins of the lab in one process: `python -m lab.origins SPEC.json`; prints `ready` when every port is open.

The spec is what `lab.lab.Lab` writes. Every ClientHello that comes to a web origin is noted in the log, one JSON object
a line: `address`, `port`, `hello` (base64, as peeked before TLS took it).
"""

import base64
import contextlib
import json
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

from lab import raw_servers, zone
from lab.http_server import serve_connection
from lab.raw_servers import Handler
from lab.site import Site

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3, None: None}


def _listen(address: str, port: int, handler: Handler) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=1024)
    threading.Thread(target=_accept, args=(listener, handler), daemon=True).start()


def _accept(listener: socket.socket, handler: Handler) -> None:
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_handle, args=(sock, handler), daemon=True).start()


def _handle(sock: socket.socket, handler: Handler) -> None:
    # A client that goes away, or a proxy that refuses us, is an everyday thing for an origin.
    with contextlib.suppress(OSError, ssl.SSLError), sock:
        handler(sock)


def _behind_tls(context: ssl.SSLContext, handler: Handler) -> Handler:
    def handle(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=True) as tls:
            handler(tls)
            _close_notify(tls)

    return handle


def _close_notify(tls: ssl.SSLSocket) -> None:
    """End as a good server does; a handler that reset the connection has no descriptor left."""
    if tls.fileno() >= 0:
        tls.settimeout(1)
        with contextlib.suppress(OSError):
            tls.unwrap().close()


def _noting_hellos(handler: Handler, log: Path, lock: threading.Lock) -> Handler:
    def handle(sock: socket.socket) -> None:
        address, port = sock.getsockname()[:2]
        line = {"address": address, "port": port, "hello": base64.b64encode(_peek_hello(sock)).decode()}
        with lock, log.open("a", encoding="ascii") as file:
            print(json.dumps(line), file=file)
        handler(sock)

    return handle


def _peek_hello(sock: socket.socket) -> bytes:
    """The first TLS record, or what there is of it when the client ends or dawdles."""
    for _ in range(200):
        seen = sock.recv(65536, socket.MSG_PEEK)
        if len(seen) < 5 or len(seen) < 5 + int.from_bytes(seen[3:5]):
            time.sleep(0.01)
            continue
        return seen
    return seen


def main(spec_file: str) -> None:
    """Open everything the spec names and serve until standard input ends."""
    spec = json.loads(Path(spec_file).read_text())
    site = Site(Path(spec["root"]))
    lock = threading.Lock()

    def web(sock: socket.socket) -> None:
        serve_connection(sock, site)

    zone.serve(zone.Zone(spec["names"]), spec["dns"])
    for origin in spec["web"]:
        made = raw_servers.context(Path(origin["certificate"]), _VERSIONS[origin["version"]], weak=origin["weak"])
        made.set_alpn_protocols(["h2", "http/1.1"])
        if ca := origin.get("client_ca"):
            made.load_verify_locations(ca)
            made.verify_mode = ssl.CERT_REQUIRED
        _listen(origin["address"], 443, _noting_hellos(_behind_tls(made, web), Path(spec["log"]), lock))
        _listen(origin["address"], 80, web)
    for address in spec["raw"]["addresses"]:
        made = raw_servers.context(Path(spec["raw"]["certificate"]))
        for port, handler in raw_servers.PLAIN.items():
            _listen(address, port, handler)
            _listen(address, port + raw_servers.TLS_OFFSET, _behind_tls(made, handler))
        _listen(address, raw_servers.NO_HANDSHAKE, raw_servers.silent)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
