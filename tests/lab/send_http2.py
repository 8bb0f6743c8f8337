"""Sends requests on one HTTP/2 connection: `-m lab.send_http2 HOST JSON…`; one JSON line for each answer.

Each request is an object: `authority`, `path`, `headers`, and `body`, the parts of which are frames of their own.
"""

import json
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.exceptions


def main() -> None:
    """Each request when the one before has its answer."""
    host, *requests = sys.argv[1:]
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    sock = context.wrap_socket(socket.create_connection((host, 443), timeout=10), server_hostname=host)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    for text in requests:
        print(json.dumps(send(sock, connection, json.loads(text))), flush=True)


def send(sock: ssl.SSLSocket, connection: h2.connection.H2Connection, request: dict) -> dict[str, str]:
    """The status and the body of the answer, or what became of the stream."""
    stream = connection.get_next_available_stream_id()
    body = request.get("body", [])
    head = {":method": "POST" if body else "GET", ":scheme": "https", ":authority": request["authority"]}
    fields = [*head.items(), (":path", request["path"]), *request.get("headers", {}).items()]
    connection.send_headers(stream, fields, end_stream=not body)
    for number, part in enumerate(body, 1):
        connection.send_data(stream, part.encode(), end_stream=number == len(body))
    told = {"status": "", "body": ""}
    while True:
        sock.sendall(connection.data_to_send())
        data = sock.recv(65536)
        if not data:
            return told | {"body": "closed"}
        for event in connection.receive_data(data):
            match event:
                case h2.events.ResponseReceived(stream_id=number) if number == stream:
                    told["status"] = dict(event.headers)[":status"]
                case h2.events.DataReceived(stream_id=number) if number == stream:
                    told["body"] += event.data.decode()
                case h2.events.StreamReset(stream_id=number) if number == stream and not told["status"]:
                    return told | {"body": "reset"}
                case h2.events.StreamEnded(stream_id=number) if number == stream:
                    return told


if __name__ == "__main__":
    main()
