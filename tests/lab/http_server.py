"""HTTP/1.1 and HTTP/2 on one blocking socket: the lab's web origins, a thread for each connection."""

import contextlib
import select
import socket
import ssl
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from lab.site import Request, Response, Site

_READ = 256 * 1024


def serve_connection(sock: socket.socket, site: Site) -> None:
    """Answer requests on `sock` until the client ends; which HTTP it is, ALPN says."""
    facts: dict[str, str | None] = {"tls": None, "alpn": None}
    if isinstance(sock, ssl.SSLSocket):
        facts = {"tls": sock.version(), "alpn": sock.selected_alpn_protocol()}
    if facts["alpn"] == "h2":
        _HTTP2(sock, site, facts).run()
    else:
        _http1(sock, site, facts)


def _http1(sock: socket.socket, site: Site, facts: dict[str, str | None]) -> None:
    with sock.makefile("rb", buffering=_READ) as stream:
        while line := stream.readline():
            method, path, _ = line.decode("ascii").split()
            headers = _http1_fields(stream)
            if headers.get("expect") == "100-continue":
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            trailers: dict[str, str] = {}
            body = _http1_body(stream, headers, trailers)
            response = site.answer(Request(method, path, headers, body, facts, trailers))
            for _ in body:  # what the site did not read is in the way of the next request
                pass
            _http1_respond(sock, method, response)
            if headers.get("connection", "").lower() == "close":
                return


def _http1_fields(stream) -> dict[str, str]:
    fields: dict[str, str] = {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.lower()] = value.strip()
    return fields


def _http1_body(stream, headers: dict[str, str], trailers: dict[str, str]) -> Iterator[bytes]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int(stream.readline().split(b";")[0], 16):
            yield stream.read(size)
            stream.readline()
        trailers.update(_http1_fields(stream))
        return
    left = int(headers.get("content-length", "0"))
    while left:
        part = stream.read1(min(left, _READ))
        if not part:
            raise ConnectionError("the client ended within a body")
        left -= len(part)
        yield part


def _http1_respond(sock: socket.socket, method: str, response: Response) -> None:
    if response.hints:
        hints = (f"{name}: {value}" for name, value in response.hints)
        sock.sendall("\r\n".join(["HTTP/1.1 103 Early Hints", *hints, "", ""]).encode())
    fields = [f"HTTP/1.1 {response.status} Lab", *(f"{name}: {value}" for name, value in response.headers)]
    chunked = response.length is None
    fields.append("transfer-encoding: chunked" if chunked else f"content-length: {response.length}")
    sock.sendall("\r\n".join([*fields, "", ""]).encode())
    if method == "HEAD":
        return
    for part in response.body:
        sock.sendall(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
    if chunked:
        trailers = (f"{name}: {value}" for name, value in response.trailers)
        sock.sendall("\r\n".join(["0", *trailers, "", ""]).encode())


class _HTTP2:
    """One HTTP/2 connection. A request is answered when it is complete; bodies wait for the client's window."""

    def __init__(self, sock: socket.socket, site: Site, facts: dict[str, str | None]) -> None:
        self._sock = sock
        self._site = site
        self._facts = facts
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._requests: dict[int, tuple[dict[str, str], list[bytes], dict[str, str]]] = {}
        self._waiting: dict[int, tuple[memoryview, Response]] = {}

    def run(self) -> None:
        """Read and write as the socket allows: a server that only writes while its client only writes waits for ever."""
        self._sock.setblocking(False)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(2**24)
        out = bytearray()
        while True:
            out += self._h2.data_to_send()
            select.select([self._sock], [self._sock] if out else [], [])
            if out:
                del out[: self._try(self._sock.send, out) or 0]
            while (data := self._try(self._sock.recv, _READ)) is not None:
                if not data:
                    return
                for event in self._h2.receive_data(data):
                    self._handle(event)
            for stream in list(self._waiting):
                self._pump(stream)

    @staticmethod
    def _try[A, T](call: Callable[[A], T], argument: A) -> T | None:
        """None: not now."""
        try:
            return call(argument)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return None

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._requests[event.stream_id] = (dict(event.headers), [], {})
            case h2.events.TrailersReceived():
                self._requests[event.stream_id][2].update(event.headers)
            case h2.events.DataReceived():
                self._requests[event.stream_id][1].append(event.data)
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self._respond(event.stream_id)
            case h2.events.StreamReset():
                self._waiting.pop(event.stream_id, None)

    def _respond(self, stream: int) -> None:
        headers, body, trailers = self._requests.pop(stream)
        request = Request(headers[":method"], headers[":path"], headers, body, self._facts, trailers)
        response = self._site.answer(request)
        if response.hints:
            self._h2.send_headers(stream, [(":status", "103"), *response.hints])
        fields = [(":status", str(response.status)), *response.headers]
        if response.length is not None:
            fields.append(("content-length", str(response.length)))
        self._h2.send_headers(stream, fields)
        self._waiting[stream] = (memoryview(b"".join(response.body)), response)

    def _pump(self, stream: int) -> None:
        body, response = self._waiting.pop(stream)
        with contextlib.suppress(h2.exceptions.StreamClosedError):
            while body and (room := self._h2.local_flow_control_window(stream)):
                size = min(room, self._h2.max_outbound_frame_size, len(body))
                self._h2.send_data(stream, body[:size].tobytes())
                body = body[size:]
            if body:
                self._waiting[stream] = (body, response)
            elif response.trailers:
                self._h2.send_headers(stream, response.trailers, end_stream=True)
            else:
                self._h2.end_stream(stream)
