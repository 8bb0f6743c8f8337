"""A server that tells who knows its key from who does not: keeper.py CERTIFICATE, HTTPS on 8443 and HTTP on 8080.

It answers each request with the digest of the Authorization that it got, and never with the key itself.
GET /away leads to `Location`, as the request's own header X-Away says.
"""

import hashlib
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        key = self.headers.get("Authorization", "")
        away = self.headers.get("X-Away")
        told = {"digest": hashlib.sha256(key.encode()).hexdigest(), "host": self.headers.get("Host"), "path": self.path}
        body = json.dumps(told).encode()
        self.send_response(302 if away else 200)
        if away:
            self.send_header("Location", away)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_CONNECT = answer  # noqa: N815 - the names are http.server's


class Server(ThreadingHTTPServer):
    daemon_threads = True


tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(sys.argv[1])
plain, secure = Server(("", 8080), Handler), Server(("", 8443), Handler)
secure.socket = tls.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=plain.serve_forever, daemon=True).start()
secure.serve_forever()
