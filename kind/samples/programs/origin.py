"""The HTTPS server that the samples call: / says hello, /data is a file, /data.sha256 its checksum, /account is for who has the token.

origin.py CERTIFICATE KEY TOKEN-FILE [PORT]
"""

import hashlib
import hmac
import socket
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DATA = bytes(range(256)) * 4096
PAGES = {
    "/": b"hello from the origin\n",
    "/data": DATA,
    "/data.sha256": f"{hashlib.sha256(DATA).hexdigest()}  data\n".encode(),
}


class Handler(BaseHTTPRequestHandler):
    """Answers GET."""

    protocol_version = "HTTP/1.1"
    # Of a connection, so that the TLS handshake is bounded as well.
    timeout = 30

    def do_GET(self) -> None:
        """One page, or 404."""
        body = PAGES.get(self.path)
        status = 404 if body is None else 200
        if self.path == "/account":
            # Read anew, since it may have changed.
            token = f"Bearer {Path(sys.argv[3]).read_text().strip()}"
            known = hmac.compare_digest(self.headers.get("Authorization", "").encode(), token.encode())
            body, status = (b"an account\n", 200) if known else (b"who are you?\n", 401)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")


class Server(ThreadingHTTPServer):
    """Listens on every address of the pod, of either family. Each connection's handshake is its own thread's."""

    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        """Bind for IPv4 as well."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def main() -> None:
    """Serve until the end."""
    certificate, key, _, *port = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(("", int(port[0]) if port else 8443), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("serving", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
