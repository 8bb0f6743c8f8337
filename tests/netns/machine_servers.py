"""The servers of `machine`: `tcp ADDRESS…` says who asks; `dns ADDRESS ANSWER` answers every query with one A record."""

import socket
import sys
import threading


def tcp(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 80), family=family) as server:
        while True:
            connection, peer = server.accept()
            with connection:
                connection.sendall(f"you are {peer[0]}\n".encode())


def dns(address: str, answer: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        while True:
            query, client = server.recvfrom(512)
            end = query.index(0, 12) + 5
            kind = query[end - 4 : end - 2]
            count = b"\0\1" if kind == b"\0\1" else b"\0\0"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(answer) if kind == b"\0\1" else b""
            server.sendto(query[:2] + b"\x81\x80\0\1" + count + b"\0\0\0\0" + query[12:end] + record, client)


if sys.argv[1] == "dns":
    dns(sys.argv[2], sys.argv[3])
threads = [threading.Thread(target=tcp, args=(address,)) for address in sys.argv[2:]]
for thread in threads:
    thread.start()
