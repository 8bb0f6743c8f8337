"""WebSockets over HTTP/2 (RFC 8441), with the `h2` package on both sides; a server that sends back whatever comes.

`python -m lab.websocket_http2 serve CERTIFICATE PORT` prints `ready`; `… ask HOST PORT` says every case of the list on a
stream of its own, and prints as JSON which came back as it was sent, and what the server announced.
"""

import json
import socket
import ssl
import sys
import threading
from pathlib import Path

import h2.config
import h2.connection
import h2.events
from h2.settings import SettingCodes

from lab import raw_servers
from samples.websocket_cases import CASES

_WINDOW = 1 << 24
"""More than is ever on its way, so that nobody waits for it."""
_FRAME = 16384


def serve(certificate: str, port: str) -> None:
    """Serve on all addresses until standard input ends."""
    context = raw_servers.context(Path(certificate))
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("0.0.0.0", int(port)))
    threading.Thread(target=_accept, args=(listener, context), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


def _accept(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        sock = context.wrap_socket(listener.accept()[0], server_side=True)
        threading.Thread(target=_echo, args=(sock,), daemon=True).start()


def _echo(sock: ssl.SSLSocket) -> None:
    connection = _began(client=False)
    while True:
        sock.sendall(connection.data_to_send())
        data = sock.recv(65536)
        if not data:
            return
        for event in connection.receive_data(data):
            match event:
                case h2.events.RequestReceived():
                    asked = dict(event.headers)
                    agrees = (asked[":method"], asked.get(":protocol")) == ("CONNECT", "websocket")
                    connection.send_headers(event.stream_id, [(":status", "200" if agrees else "400")])
                case h2.events.DataReceived():
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    connection.send_data(event.stream_id, event.data)
                case h2.events.StreamEnded():
                    connection.end_stream(event.stream_id)


def _began(*, client: bool) -> h2.connection.H2Connection:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding="utf-8"))
    connection.initiate_connection()
    mine = {} if client else {SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
    connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW, **mine})
    connection.increment_flow_control_window(_WINDOW)
    return connection


class _Client:
    """One connection; keeps what came by stream."""

    def __init__(self, host: str, port: int) -> None:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2"])
        sock = socket.create_connection((host, port), timeout=10)
        self._sock = context.wrap_socket(sock, server_hostname=host)
        self._connection = _began(client=True)
        self._authority = f"{host}:{port}"
        self._windows = 0
        self._got: dict[int, bytearray] = {}
        self._status: dict[int, str] = {}
        self._ended: set[int] = set()

    def announced(self) -> dict[str, int]:
        """What the server's SETTINGS say, when it has also opened its window."""
        while not self._windows or SettingCodes.ENABLE_CONNECT_PROTOCOL not in self._connection.remote_settings:
            self._turn()
        return {SettingCodes(code).name: value for code, value in self._connection.remote_settings.items()}

    def say(self, data: bytes) -> tuple[str, bytes]:
        """Send these frames on a stream of their own; returns the status, and what came back."""
        stream = self._connection.get_next_available_stream_id()
        head = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":path": "/chat"}
        self._connection.send_headers(stream, [*head.items(), (":authority", self._authority)])
        for at in range(0, len(data), _FRAME):
            self._connection.send_data(stream, data[at : at + _FRAME])
        self._connection.end_stream(stream)
        while stream not in self._ended:
            self._turn()
        return self._status[stream], bytes(self._got.get(stream, b""))

    def _turn(self) -> None:
        self._sock.sendall(self._connection.data_to_send())
        for event in self._connection.receive_data(self._sock.recv(65536)):
            match event:
                case h2.events.WindowUpdated(stream_id=0):
                    self._windows += 1
                case h2.events.ResponseReceived():
                    self._status[event.stream_id] = dict(event.headers)[":status"]
                case h2.events.DataReceived():
                    self._got.setdefault(event.stream_id, bytearray()).extend(event.data)
                    self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded() | h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    self._ended.add(getattr(event, "stream_id", 0))


def ask(host: str, port: str) -> None:
    """Say every case, one after the other, and what is no WebSocket at the end."""
    client = _Client(host, int(port))
    told: dict[str, object] = {"settings": client.announced()}
    for case in CASES:
        data = case.bytes(client=True)
        told[case.name] = client.say(data) == ("200", data)
    print(json.dumps(told))


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
