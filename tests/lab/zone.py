"""A tiny authoritative DNS server for the lab's names, UDP and TCP, on threads."""

import fnmatch
import socket
import struct
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

TTL = 60


class Zone:
    """Patterns (`*.tls12.weir.test`) and their addresses; the first pattern that fits answers."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self._names = names

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        found = next((a for pattern, a in self._names.items() if fnmatch.fnmatchcase(name, pattern)), None)
        if found is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
            return reply
        kinds = {dns.rdatatype.A: ".", dns.rdatatype.AAAA: ":"}
        wanted = [a for a in found if kinds.get(question.rdtype, "?") in a]
        if wanted:
            reply.answer.append(dns.rrset.from_text(question.name, TTL, "IN", question.rdtype, *wanted))
        return reply


def serve(zone: Zone, address: str) -> None:
    """Answer on port 53 of `address`, in the background."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, 53))
    tcp = socket.create_server((address, 53), backlog=128)
    threading.Thread(target=_serve_udp, args=(zone, udp), daemon=True).start()
    threading.Thread(target=_serve_tcp, args=(zone, tcp), daemon=True).start()


def _serve_udp(zone: Zone, sock: socket.socket) -> None:
    while True:
        data, peer = sock.recvfrom(65535)
        sock.sendto(zone.answer(dns.message.from_wire(data)).to_wire(), peer)


def _serve_tcp(zone: Zone, listener: socket.socket) -> None:
    while True:
        sock, _ = listener.accept()
        with sock, sock.makefile("rb") as stream:
            while size := stream.read(2):
                data = stream.read(struct.unpack("!H", size)[0])
                reply = zone.answer(dns.message.from_wire(data)).to_wire()
                sock.sendall(struct.pack("!H", len(reply)) + reply)
