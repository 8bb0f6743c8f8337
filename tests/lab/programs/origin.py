"""The outside world, in a pod: HTTPS with a good certificate, a bad one, and one that asks for the client's; HTTP, TCP and
UDP echo, a server that speaks first, DNS. On all addresses of both families. GET /arrived tells what came in.

Run as root: for ports below 1024, and for the sniffer, which sees packets whether or not somebody listens.
"""

import asyncio
import collections
import ipaddress
import socket
import ssl

from aiohttp import web

OUTGOING = 4
TCP, UDP = 6, 17
ANSWERS = {1: "192.0.2.53", 28: "2001:db8::53"}
arrived: collections.Counter[str] = collections.Counter()


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello from origin\n")


async def headers(request: web.Request) -> web.Response:
    return web.json_response({name.lower(): value for name, value in request.headers.items()})


async def slow(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    for _ in range(int(request.query_string or "5")):
        await answer.write(b"x")
        await asyncio.sleep(1)
    return answer


async def tell_arrived(_: web.Request) -> web.Response:
    return web.json_response(arrived)


def sniff() -> None:
    """Count first packets: TCP with SYN alone, and all UDP, by family, protocol and port."""
    packet, (_, _, kind, *_) = sniffer.recvfrom(128)
    if kind == OUTGOING or not packet:
        return
    family = packet[0] >> 4
    protocol, begin = (packet[9], (packet[0] & 15) * 4) if family == 4 else (packet[6], 40)
    segment = packet[begin:]
    if (protocol == TCP and segment[13] & 0x12 == 0x02) or protocol == UDP:
        arrived[f"{family} {protocol} {int.from_bytes(segment[2:4])}"] += 1


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, greeting: bytes = b"") -> None:
    writer.write(greeting)
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await echo(reader, writer, b"220 origin\r\n")


def dns_answer(query: bytes) -> bytes:
    """The same address for every name."""
    end = query.index(b"\0", 12) + 5
    address = ANSWERS.get(int.from_bytes(query[end - 4 : end - 2]))
    packed = ipaddress.ip_address(address).packed if address else b""
    record = b"\xc0\x0c" + query[end - 4 : end] + (5).to_bytes(4) + len(packed).to_bytes(2) + packed if address else b""
    counts = b"\0\1" + (b"\0\1" if address else b"\0\0") + b"\0\0\0\0"
    return query[:2] + b"\x85\x80" + counts + query[12:end] + record


async def dns_over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while length := await reader.read(2):
        answer = dns_answer(await reader.readexactly(int.from_bytes(length)))
        writer.write(len(answer).to_bytes(2) + answer)
    writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer) -> None:
        self.answer = answer

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data, address) -> None:
        self.transport.sendto(self.answer(data), address)


def datagram_socket(port: int) -> socket.socket:
    """On all addresses of all families that there are."""
    if not socket.has_dualstack_ipv6():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("", port))
    else:
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::", port))
    return made


def context(certificate: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(f"/certs/{certificate}")
    return made


async def main() -> None:
    app = web.Application()
    app.router.add_get("/", hello)
    app.router.add_get("/headers", headers)
    app.router.add_get("/slow", slow)
    app.router.add_get("/arrived", tell_arrived)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    asks = context("good.pem")
    asks.verify_mode = ssl.CERT_OPTIONAL
    asks.load_verify_locations("/certs/ca.crt")
    loop = asyncio.get_running_loop()
    for port, answer in ((7007, bytes), (53, dns_answer)):
        await loop.create_datagram_endpoint(lambda f=answer: Datagrams(f), sock=datagram_socket(port))
    await asyncio.start_server(echo, None, 7007)
    await asyncio.start_server(banner, None, 2525)
    await asyncio.start_server(dns_over_tcp, None, 53)
    loop.add_reader(sniffer, sniff)
    sites = {80: None, 443: context("good.pem"), 444: context("bad.pem"), 445: asks}
    for port, security in sites.items():
        await web.TCPSite(runner, None, port, ssl_context=security, backlog=1024).start()
    await asyncio.Event().wait()


sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
asyncio.run(main())
