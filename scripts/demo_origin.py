"""The demo's internet: a DNS server that knows every name, and an HTTPS server that is each of them.

    demo_origin.py ADDRESS CERTIFICATE

Serves on ADDRESS, ports 53 and 443, with the key and certificate in the PEM file CERTIFICATE. Prints `ready` when it
serves, and serves until it is killed. Run by scripts/demo, in a network namespace of the demo's.
"""

import http.server
import socketserver
import ssl
import sys
from ipaddress import IPv4Address
from threading import Thread

A = 1


class Names(socketserver.BaseRequestHandler):
    """DNS (RFC 1035): every name has one A record, the address of this server, and no other record."""

    def handle(self) -> None:
        """Answer one query: its header and question back, and the record if A was asked for."""
        query, sock = self.request
        end = query.index(0, 12) + 5
        known = int.from_bytes(query[end - 4 : end - 2]) == A
        # A response without error: recursion desired and available; the counts of its four sections.
        header = query[:2] + bytes.fromhex("8180 0001") + bytes([0, known, 0, 0, 0, 0])
        # The name is that at offset 12; type A, class IN, 60 s, 4 bytes.
        record = bytes.fromhex("c00c 0001 0001 0000003c 0004") + IPv4Address(self.server.server_address[0]).packed
        sock.sendto(header + query[12:end] + record * known, self.client_address)


class Greeting(http.server.BaseHTTPRequestHandler):
    """Says which host was asked."""

    def do_GET(self) -> None:
        """One line of text."""
        body = f"hello from {self.headers['Host']}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: what the demo prints is for the reader."""


class HTTPSServer(http.server.ThreadingHTTPServer):
    """One thread a connection; the TLS handshake is the thread's, so that a slow client holds up nobody."""

    request_queue_size = 128

    def __init__(self, address: str, certificate: str) -> None:
        super().__init__((address, 443), Greeting)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_: object) -> None:
        """Nothing: a client that leaves because it does not trust the certificate is part of the demo."""


def main(address: str, certificate: str) -> None:
    """Serve DNS and HTTPS."""
    names = socketserver.UDPServer((address, 53), Names)
    web = HTTPSServer(address, certificate)
    Thread(target=names.serve_forever, daemon=True).start()
    print("ready", flush=True)
    web.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
