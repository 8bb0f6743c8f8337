"""Ways round the proxy, tried from a process without any capability: what each attempt got.

`python -m lab.escapes TARGETS.json RESULTS.json` runs inside a pod, and becomes nobody before it tries anything. It tries
what needs a word from outside (the proxy is stopped) last: says `ready`, and goes on with the next line it reads.
"""

import contextlib
import encodings.idna  # noqa: F401 - nobody may not be able to read it later
import json
import os
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.probe_base import context, named

NOBODY = 65534
PROXY, ADMIN, HEARTBEAT = 15801, 15802, 15803
WORD = b"a word\n"
PINNED = "pinned.test"
PATIENCE = 3.0
UDP_PATIENCE = 0.5
"""What is not answered here never is: the other side is on this machine."""
_IP_TRANSPARENT, _SO_MARK = 19, 36


def become_nobody() -> None:
    """Give up root for good, and every capability with it (capabilities(7))."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def attempt(call: Callable[[], Any]) -> Any:
    """What the call gives; how it failed, if it did."""
    try:
        return call()
    except OSError as error:
        return named(error)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def bound(kind: socket.SocketKind, address: str, port: int) -> str:
    """What a socket hears that is bound to the pod's link, as anybody may (socket(7), SO_BINDTODEVICE)."""

    def call() -> str:
        with socket.socket(_family(address), kind) as sock:
            sock.settimeout(UDP_PATIENCE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            sock.connect((address, port))
            sock.send(WORD)
            return sock.recv(4096).decode("latin-1")

    return attempt(call)


def tcp(address: str, port: int, say: bytes = WORD) -> str:
    """What a server answers to a word, to its end or to as many bytes."""

    def call() -> str:
        with socket.create_connection((address, port), PATIENCE) as sock:
            sock.sendall(say)
            return sock.recv(4096).decode("latin-1")

    return attempt(call)


def fast_open(address: str, port: int) -> str:
    """The same with the word in the SYN, where the kernel lets us (RFC 7413)."""

    def call() -> str:
        with socket.socket(_family(address), socket.SOCK_STREAM) as sock:
            # A socket with a timeout does not wait in sendto.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(PATIENCE), 0))
            sock.sendto(WORD, socket.MSG_FASTOPEN, (address, port))
            return sock.recv(4096).decode()

    return attempt(call)


def udp(address: str, port: int, say: bytes = WORD) -> str:
    """What a connected socket hears after one datagram."""

    def call() -> str:
        with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
            sock.settimeout(UDP_PATIENCE)
            sock.connect((address, port))
            sock.send(say)
            return sock.recv(4096).decode("latin-1")

    return attempt(call)


def tls(address: str, port: int, host: str, ca: str) -> Any:
    """The version of a handshake that asks for `host` at `address`; how it failed, if it did."""

    def call() -> Any:
        with (
            socket.create_connection((address, port), PATIENCE) as sock,
            context(ca).wrap_socket(sock, server_hostname=host) as wrapped,
        ):
            return wrapped.version()

    return attempt(call)


def http(address: str, host: str, port: int = 80, path: str = "/hello", *, method: str = "GET") -> Any:
    """The status of the answer; what is posted would pin a host, where that is understood."""
    body = b"" if method == "GET" else json.dumps({"host": PINNED}).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"

    def call() -> Any:
        with socket.create_connection((address, port), PATIENCE) as sock:
            sock.sendall(head.encode() + body)
            status = sock.makefile("rb").readline()
            return int(status.split()[1])

    return attempt(call)


def question(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", os.getpid() & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)


def _told(answer: bytes, source: Any = None) -> list[Any]:
    _, flags, _, answers = struct.unpack_from("!HHHH", answer)
    return [flags & 0xF, answers, *([source[0]] if source else [])]


def dns_udp(server: str, name: str) -> Any:
    """The answer's code, how many records it has, and who it says it is from."""

    def call() -> Any:
        with socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE)
            sock.sendto(question(name), (server, 53))
            return _told(*sock.recvfrom(4096))

    return attempt(call)


def dns_tcp(server: str, name: str) -> Any:
    def call() -> Any:
        with socket.create_connection((server, 53), PATIENCE) as sock, sock.makefile("rb") as stream:
            query = question(name)
            sock.sendall(struct.pack("!H", len(query)) + query)
            size = stream.read(2)
            return _told(stream.read(struct.unpack("!H", size)[0])) if size else "end"

    return attempt(call)


def _bind_beside(kind: socket.SocketKind, address: str) -> Any:
    def call() -> str:
        with socket.socket(_family(address), kind) as sock:
            if _family(address) == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                sock.setsockopt(socket.SOL_SOCKET, option, 1)
            sock.bind((address, PROXY))
            return "bound"

    return attempt(call)


def _socket_option(level: int, option: int) -> Any:
    def call() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setsockopt(level, option, 1)
            return "set"

    return attempt(call)


def _open(family: int, kind: int, protocol: int) -> Any:
    def call() -> str:
        socket.socket(family, kind, protocol).close()
        return "opened"

    return attempt(call)


def privileges(proxy: int) -> dict[str, Any]:
    """What would need a capability, or to be the proxy."""
    return {
        "be-the-proxy": attempt(lambda: os.setresuid(PROXY, PROXY, PROXY)),
        "mark": _socket_option(socket.SOL_SOCKET, _SO_MARK),
        "transparent": _socket_option(socket.SOL_IP, _IP_TRANSPARENT),
        "raw": _open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP),
        "packet": _open(socket.AF_PACKET, socket.SOCK_RAW, 0),
        "stop-the-proxy": attempt(lambda: os.kill(proxy, signal.SIGSTOP)),
        "look-into-the-proxy": attempt(lambda: list(Path(f"/proc/{proxy}/root/").iterdir())),
        **{
            f"bind-{kind.name}-{address}": _bind_beside(kind, address)
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
            for address in ("0.0.0.0", "127.0.0.1", "::", "::1")
        },
    }


def control_socket(path: str) -> Any:
    def call() -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(path)
            return "connected"

    return attempt(call)


def admin() -> dict[str, Any]:
    """What can be read, and what can be changed."""
    reads = {
        path: http("127.0.0.1", "localhost", ADMIN, path) for path in ("/healthz", "/config", "/trust", "/metrics")
    }
    writes = {
        f"{method} {path}": http("127.0.0.1", "localhost", ADMIN, path, method=method)
        for method in ("POST", "PUT", "DELETE")
        for path in ("/trust/pin", "/config")
    }
    others = {
        "/flows": http("127.0.0.1", "localhost", ADMIN, "/flows"),
        "rebound": http("127.0.0.1", "attacker.test", ADMIN, "/config"),
    }
    return {**reads, **writes, **others}


def beat(seconds: float) -> None:
    """Send what the proxy would, several times as often."""
    targets = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    with contextlib.ExitStack() as stack:
        sockets = [(stack.enter_context(socket.socket(f, socket.SOCK_DGRAM)), a) for f, a in targets]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for sock, address in sockets:
                sock.sendto(b"weir", (address, HEARTBEAT))
            time.sleep(0.02)


def with_the_proxy_stopped(addresses: list[str], port: int) -> dict[str, Any]:
    """Beat in its stead for longer than the heartbeat's timeout, then see who answers."""
    beat(2.0)
    return {address: tcp(address, port) for address in addresses}


def run(targets: dict[str, Any]) -> dict[str, Any]:
    """Everything that needs no word from outside, in this order; `targets` says where."""
    own: list[str] = targets["own"]
    raw, raw6, web, resolver, ca = (targets[name] for name in ("raw", "raw6", "web", "resolver", "ca"))
    known, denied = targets["known"], targets["denied"]
    results: dict[str, Any] = {"privileges": privileges(targets["proxy"])}
    for address in own:
        results[f"proxy-tcp {address}"] = tcp(address, PROXY)
        results[f"proxy-udp {address}"] = udp(address, PROXY)
        results[f"proxy-dns {address}"] = udp(address, PROXY, question(known))
    results["admin"] = admin()
    results["admin-elsewhere"] = {address: tcp(address, ADMIN) for address in own if address != "127.0.0.1"}
    results["control"] = {path: control_socket(path) for path in targets["control"]}
    results["before-dns"] = tls(web, 443, known, ca)
    for server in (resolver, raw):
        for name in (known, denied):
            results[f"dns-udp {server} {name}"] = dns_udp(server, name)
            results[f"dns-tcp {server} {name}"] = dns_tcp(server, name)
    results["dns-udp-v6"] = dns_udp(raw6, denied)
    results["after-dns"] = tls(web, 443, known, ca)
    for address in (raw, raw6, f"::ffff:{raw}"):
        results[f"tcp {address}"] = tcp(address, targets["echo"])
        results[f"quic {address}"] = udp(address, 443)
        results[f"udp {address}"] = udp(address, 9999)
        results[f"denied-sni {address}"] = tls(address, targets["echo"] + 10000, denied, ca)
        results[f"borrowed-sni {address}"] = tls(address, targets["echo"] + 10000, known, ca)
        results[f"borrowed-host {address}"] = http(address, known, targets["echo"])
    for address in (raw, raw6):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            results[f"bound {kind.name} {address}"] = bound(kind, address, targets["echo"])
    results["bound-dns"] = bound(socket.SOCK_DGRAM, resolver, 53)
    results["fast-open"] = fast_open(raw, targets["echo"])
    results["denied-host"] = http(web, denied)
    results["borrowed-host-web"] = http(web, "never-asked.tls.weir.test")
    return results


def main(targets_file: str, results_file: str) -> None:
    targets = json.loads(Path(targets_file).read_text())
    with Path(results_file).open("w", encoding="utf-8") as results:
        ssl.create_default_context()
        become_nobody()
        found = run(targets)
        print("ready", flush=True)
        sys.stdin.readline()
        found["proxy-stopped"] = with_the_proxy_stopped([targets["raw"], targets["raw6"]], targets["echo"])
        json.dump(found, results)
    print("done", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
