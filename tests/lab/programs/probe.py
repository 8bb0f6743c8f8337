"""Each thing that a pod may do to the outside world, once; one JSON line tells what came of it.

usage: TARGETS, which is JSON: of each family ("4", "6") the name and the address of each role of the origin.
"""

import http.client
import json
import os
import socket
import ssl
import sys
from pathlib import Path

PATIENCE = 15
FAMILIES = {"4": (1, "127.0.0.1"), "6": (28, "::1")}
"""The DNS type of an address, and loopback."""


def over_tls(name, *, address=None, port=443, path="/", roots=None):
    context = ssl.create_default_context(cafile=roots)
    connection = http.client.HTTPConnection(name, port)
    plain = socket.create_connection((address or name, port), timeout=PATIENCE)
    with plain, context.wrap_socket(plain, server_hostname=name) as connection.sock:
        issuer = dict(part[0] for part in connection.sock.getpeercert()["issuer"])
        return {**get(connection, path), "weir": issuer.get("organizationName") == "Weir"}


def get(connection, path="/"):
    connection.request("GET", path)
    answer = connection.getresponse()
    return {"status": answer.status, "body": answer.read().decode().strip()}


def tcp(address, port, sent=b"\x01any bytes", length=10):
    with socket.create_connection((address, port), timeout=PATIENCE) as connection:
        if sent:
            connection.sendall(sent)
        return {"got": connection.recv(length, socket.MSG_WAITALL).decode()}


def banner(name):
    with socket.create_connection((name, 2525), timeout=PATIENCE) as connection:
        greeting = connection.recv(12, socket.MSG_WAITALL).decode()
        connection.sendall(b"QUIT\r\n")
        return {"got": greeting, "echo": connection.recv(6, socket.MSG_WAITALL).decode()}


def udp(address, port, sent=b"any datagram"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as connection:
        connection.settimeout(PATIENCE)
        connection.connect((address, port))
        connection.send(sent)
        return connection.recv(4096)


def dns(name, kind, server, *, over):
    labels = b"".join(len(label).to_bytes(1) + label.encode() for label in name.split("."))
    query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + kind.to_bytes(2) + b"\0\1"
    if over == "udp":
        answer = udp(server, 53, query)
    else:
        with socket.create_connection((server, 53), timeout=PATIENCE) as connection:
            connection.sendall(len(query).to_bytes(2) + query)
            length = int.from_bytes(connection.recv(2, socket.MSG_WAITALL))
            answer = connection.recv(length, socket.MSG_WAITALL)
    return {"code": answer[3] & 15, "answers": int.from_bytes(answer[6:8]), "matches": answer[:2] == query[:2]}


def probes(family, to):
    kind, loopback = FAMILIES[family]
    resolver = next(
        line.split()[1] for line in Path("/etc/resolv.conf").read_text().splitlines() if line.startswith("nameserver")
    )
    web = to["web"]
    yield "https", lambda: over_tls(web["host"])
    yield "http", lambda: get(http.client.HTTPConnection(web["host"], timeout=PATIENCE))
    for attempt in range(3):
        yield f"pinned-{attempt}", lambda: over_tls(to["pinned"]["host"], roots="/origin/ca.crt")
    yield "passed", lambda: over_tls(to["passed"]["host"])
    yield "denied", lambda: over_tls(to["denied"]["host"])
    yield "denied-by-address", lambda: over_tls(to["denied"]["host"], address=to["denied"]["address"])
    yield "forbidden", lambda: over_tls(to["ruled"]["host"], path="/forbidden?secret=1")
    yield "headers", lambda: over_tls(to["ruled"]["host"], path="/headers")
    yield "bad-certificate", lambda: over_tls(web["host"], port=444)
    yield "client-certificate", lambda: over_tls(web["host"], port=445)
    yield "tcp", lambda: tcp(web["host"], 7007)
    yield "banner", lambda: banner(web["host"])
    yield "refused", lambda: tcp(web["host"], 9)
    yield "to-proxy", lambda: tcp(loopback, 15801)
    yield "udp", lambda: {"got": udp(web["address"], 7007).decode()}
    yield "quic", lambda: {"got": udp(web["address"], 443).decode()}
    for over in ("udp", "tcp"):
        yield f"dns-{over}", lambda over=over: dns(web["host"], kind, resolver, over=over)
        yield f"dns-{over}-denied", lambda over=over: dns(to["denied"]["host"], kind, resolver, over=over)
        yield f"dns-{over}-other", lambda over=over: dns("other.example", kind, web["address"], over=over)


def outcome(probe):
    try:
        return probe()
    except ssl.SSLError as error:
        return {"error": type(error).__name__, "reason": error.reason}
    except OSError as error:
        return {"error": type(error).__name__}


for family, targets in json.loads(sys.argv[1]).items():
    for name, probe in probes(family, targets):
        print(json.dumps({"family": family, "probe": name, "uid": os.getuid(), "outcome": outcome(probe)}), flush=True)
