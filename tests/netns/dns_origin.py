"""A resolver for tests: `dns_origin.py ADDRESS…`. Answers on port 53, UDP and TCP, from a zone with one of everything.

`sizeN.test` TXT is an answer of N bytes, truncated over UDP when it is larger than the client takes.
"""

import re
import signal
import socket
import socketserver
import sys
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

ZONE = {
    ("a.test.", "A"): ["192.0.2.1", "192.0.2.2"],
    ("a.test.", "AAAA"): ["2001:db8::1"],
    ("srv.test.", "SRV"): ["1 2 443 a.test."],
    ("mx.test.", "MX"): ["10 a.test.", "20 b.test."],
    ("txt.test.", "TXT"): ['"one" "two words"', r'"\000\255"'],
    ("h.test.", "HTTPS"): ['1 . alpn="h2,h3" ipv4hint="192.0.2.7" ech="AAT+DQAA"', "2 a.test. port=8443"],
    ("_dns.test.", "SVCB"): ['1 a.test. alpn="dot,h3"'],
    ("soa.test.", "SOA"): ["ns.test. root.test. 1 2 3 4 5"],
    ("192.test.", "PTR"): ["a.test."],
    ("tlsa.test.", "CAA"): ['0 issue "ca.test"'],
}
CHAIN = {"c1.test.": "c2.test.", "c2.test.": "c3.test.", "c3.test.": "a.test."}


def answer(data: bytes, *, stream: bool) -> bytes:
    query = dns.message.from_wire(data)
    reply = dns.message.make_response(query, recursion_available=True)
    question = query.question[0]
    name = question.name.to_text().lower()
    rdtype = dns.rdatatype.to_text(question.rdtype)
    owner = question.name
    while name in CHAIN:
        reply.answer.append(dns.rrset.from_text(owner, 300, "IN", "CNAME", CHAIN[name]))
        name = CHAIN[name]
        owner = dns.name.from_text(name)
    if size := re.fullmatch(r"size(\d+)\.test\.", name):
        fill(reply, int(size[1]))
    elif name == "servfail.test.":
        reply.set_rcode(dns.rcode.SERVFAIL)
    elif (name, rdtype) in ZONE:
        reply.answer.append(dns.rrset.from_text(owner, 60, "IN", rdtype, *ZONE[name, rdtype]))
    elif not any(known == name for known, _ in ZONE):
        reply.set_rcode(dns.rcode.NXDOMAIN)
        reply.authority.append(dns.rrset.from_text("test.", 900, "IN", "SOA", "ns.test. root.test. 1 2 3 4 30"))
    wire = reply.to_wire(want_shuffle=False, max_size=65535)
    limit = 65535 if stream else max(512, query.payload)
    if len(wire) > limit:
        reply.answer.clear()
        reply.flags |= dns.flags.TC
        wire = reply.to_wire()
    return wire


def fill(reply: dns.message.Message, size: int) -> None:
    """TXT records until the message has `size` bytes."""
    name = reply.question[0].name
    missing = size - len(reply.to_wire(max_size=65535))
    texts = []
    while missing > 0:
        length = min(missing, 240 + 13) if missing - 253 > 13 or missing <= 253 else missing - 20
        texts.append(f'"{len(texts):0{length - 13}d}"')
        missing -= length
    reply.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", *texts))


class UDP(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(answer(data, stream=False), self.client_address)


class TCP(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while size := self.rfile.read(2):
            reply = answer(self.rfile.read(int.from_bytes(size)), stream=True)
            self.wfile.write(len(reply).to_bytes(2) + reply)


def echo(address: str) -> None:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 9999))
    while True:
        data, peer = sock.recvfrom(65535)
        sock.sendto(data, peer)


def main() -> None:
    for address in sys.argv[1:]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind, handler in ((socketserver.ThreadingUDPServer, UDP), (socketserver.ThreadingTCPServer, TCP)):
            server = type("Server", (kind,), {"address_family": family, "allow_reuse_address": True})(
                (address, 53), handler
            )
            threading.Thread(target=server.serve_forever, daemon=True).start()
        threading.Thread(target=echo, args=(address,), daemon=True).start()
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
