"""A proxy with no policy, for tests of the kernel part: says what it was asked for, echoes, and beats.

Run as root in the pod's namespace: `fake_proxy.py CONFIG.json`. It opens its listeners, becomes the proxy's user with
NET_RAW and NET_BIND_SERVICE, prints "ready", and serves. TCP: "proxy ADDRESS PORT\\n", then echo; the line "dial\\n"
makes it connect to where the client wanted to go. UDP: answers "proxy ADDRESS PORT" from that address.
"""

import ctypes
import json
import os
import selectors
import socket
import struct
import sys
import time
from pathlib import Path

IP_PKTINFO, IP_TRANSPARENT, IP_ORIGDSTADDR = 8, 19, 20
IPV6_PKTINFO, IPV6_ORIGDSTADDR, IPV6_TRANSPARENT = 50, 74, 75
SO_ORIGINAL_DST = 80
PR_SET_KEEPCAPS = 8
NET_BIND_SERVICE, NET_RAW = 10, 13
LEVEL = {socket.AF_INET: socket.IPPROTO_IP, socket.AF_INET6: socket.IPPROTO_IPV6}

config = json.loads(Path(sys.argv[1]).read_bytes())
transparent = config["capture"]["mode"] == "TPROXY"
ports, identity = config["ports"], config["identity"]


def new_socket(family, kind):
    made = socket.socket(family, kind)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if transparent:
        option = IP_TRANSPARENT if family == socket.AF_INET else IPV6_TRANSPARENT
        made.setsockopt(LEVEL[family], option, 1)
    return made


def listen(family):
    tcp = new_socket(family, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind(("", ports["tcp"]))
    tcp.listen(8)
    udp = new_socket(family, socket.SOCK_DGRAM)
    option = IP_ORIGDSTADDR if family == socket.AF_INET else IPV6_ORIGDSTADDR
    udp.setsockopt(LEVEL[family], option, 1)
    option = IP_PKTINFO if family == socket.AF_INET else socket.IPV6_RECVPKTINFO
    udp.setsockopt(LEVEL[family], option, 1)
    udp.bind(("", ports["udp"]))
    return tcp, udp


def drop_root():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(*[identity["gid"]] * 3)
    os.setresuid(*[identity["uid"]] * 3)
    caps = 1 << NET_BIND_SERVICE | 1 << NET_RAW
    header = struct.pack("II", 0x20080522, 0)
    if libc.capset(header, struct.pack("IIIIII", caps, caps, 0, 0, 0, 0)):
        raise OSError(ctypes.get_errno(), "capset")


def original(connection):
    if transparent:
        return connection.getsockname()
    if connection.family == socket.AF_INET:
        _, port, packed = struct.unpack("!HH4s8x", connection.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16))
    else:
        raw = connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
        _, port, _, packed, _ = struct.unpack("!HHI16sI", raw)
    return socket.inet_ntop(connection.family, packed), port


def accept(listener):
    connection, _ = listener.accept()
    address, port = original(connection)[:2]
    connection.sendall(f"proxy {address} {port}\n".encode())
    selector.register(connection, selectors.EVENT_READ, echo)


def echo(connection):
    try:
        data = connection.recv(65536)
    except ConnectionError:
        data = b""
    if data == b"dial\n":
        upstream = socket.socket(connection.family)
        upstream.connect(original(connection)[:2])
        dialled.append(upstream)
        upstream.recv(64)
        upstream.sendall(b"from the proxy\n")
        data = f"{upstream.getsockname()[1]}\n".encode()
    if data:
        connection.sendall(data)
    else:
        selector.unregister(connection)
        connection.close()


def answer(listener):
    asked, control, _, client = listener.recvmsg(65536, 256)
    control.sort(key=lambda entry: entry[1] in (IP_PKTINFO, IPV6_PKTINFO))
    data = control[0][2] if control else b""
    if listener.family == socket.AF_INET:
        address, port = socket.inet_ntop(socket.AF_INET, data[4:8]), int.from_bytes(data[2:4])
    else:
        address, port = socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4])
    text = f"proxy {address} {port}".encode()
    if not transparent:  # from the address that was asked, or conntrack does not know the answer
        info = control[1]
        listener.sendmsg([text], [info], 0, client)
        return
    if asked == b"later":  # the connection that conntrack keeps for a datagram is gone by then
        time.sleep(1.5)
    with new_socket(listener.family, socket.SOCK_DGRAM) as reply:
        reply.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reply.bind((address, port))
        reply.sendto(text, client)


selector = selectors.DefaultSelector()
dialled = []
for found in (socket.AF_INET, socket.AF_INET6):
    try:
        stream, datagrams = listen(found)
    except OSError as error:  # a pod without this family
        print(f"no {found.name}: {error}", file=sys.stderr)
        continue
    selector.register(stream, selectors.EVENT_READ, accept)
    selector.register(datagrams, selectors.EVENT_READ, answer)
drop_root()
beats = [(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "127.0.0.1")]
beats.append((socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), "::1"))


def beat():
    for sender, address in beats:
        try:
            sender.sendto(b"", (address, ports["heartbeat"]))
        except OSError as error:
            print(f"no heartbeat to {address}: {error}", file=sys.stderr)


beat()
print("ready", flush=True)
due = time.monotonic()
while True:
    for key, _ in selector.select(timeout=max(0.0, due - time.monotonic())):
        key.data(key.fileobj)
    if time.monotonic() >= due:
        beat()
        due = time.monotonic() + config["heartbeat"]["interval"]
