"""Sends requests just as they are given, on one connection: send.py URL REQUEST…; one JSON line for each answer.

A request of several parts, between which the program waits a moment, has them parted by `<pause>`.
"""

import http.client
import json
import socket
import ssl
import sys
import time
from urllib.parse import urlsplit

url, *requests = sys.argv[1:]
to = urlsplit(url)
sock = socket.create_connection((to.hostname, to.port or (443 if to.scheme == "https" else 80)), timeout=10)
if to.scheme == "https":
    sock = ssl.create_default_context().wrap_socket(sock, server_hostname=to.hostname)
for request in requests:
    try:
        for number, part in enumerate(request.split("<pause>")):
            if number:
                time.sleep(0.3)
            sock.sendall(part.encode())
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        told = {"status": answer.status, "location": answer.getheader("Location"), "body": answer.read().decode()}
    except (OSError, http.client.HTTPException) as error:
        told = {"status": 0, "location": None, "body": type(error).__name__}
    print(json.dumps(told), flush=True)
