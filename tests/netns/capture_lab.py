"""A pod and a far end in two namespaces, for tests of the kernel part.

Sockets are made inside a namespace, as any user, by this very process; they stay there. Nothing is left behind.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from weir_sidecar.contract.config import SidecarConfig, encode
from weir_sidecar.netsetup import capture

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 0x0003
POD, FAR = {4: "10.77.0.2", 6: "fd77::2"}, {4: "10.77.0.1", 6: "fd77::1"}
ELSEWHERE = {4: "10.78.0.1", 6: "fd78::1"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
MAC = {"pod": "02:00:00:00:00:02", "far": "02:00:00:00:00:01"}
TCP_PORTS = (53, 80, 443, 8080)
UDP_PORTS = (53, 123, 443)
NOBODY = 65534


def sh(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Make what is made here in that namespace (of this thread only)."""
    with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{namespace}").open() as there:
        os.setns(there.fileno(), CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(home.fileno(), CLONE_NEWNET)


def sysctl(namespace: str, name: str, value: int) -> None:
    """Set one of the namespace's own."""
    with inside(namespace):
        Path("/proc/sys", *name.split(".")).write_text(str(value))


@contextmanager
def acting_as(uid: int, gid: int = NOBODY) -> Iterator[None]:
    """A socket has the user and group that were effective when it was made."""
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


class Pod:
    """Two namespaces joined by a veth, a far end that answers "far", and a proxy that can be killed."""

    def __init__(self, directory: Path, name: str = f"wk{os.getpid()}") -> None:
        self.directory = directory
        self.pod, self.far = f"{name}-pod", f"{name}-far"
        self.proxy: subprocess.Popen[str] | None = None
        self.config: SidecarConfig | None = None
        self._sockets: list[socket.socket] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        self._delete()
        for namespace in (self.pod, self.far):
            sh("ip", "netns", "add", namespace)
            sh("ip", "-n", namespace, "link", "set", "lo", "up")
        sh("ip", "-n", self.pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self.far)
        # Neighbours are known beforehand: nothing waits for them, and the wire carries nothing else.
        for namespace, address, mac, other, others_mac in (
            (self.pod, POD, MAC["pod"], FAR, MAC["far"]),
            (self.far, FAR, MAC["far"], POD, MAC["pod"]),
        ):
            sh("ip", "-n", namespace, "link", "set", "eth0", "address", mac)
            sh("ip", "-n", namespace, "addr", "add", f"{address[4]}/24", "dev", "eth0")
            sh("ip", "-n", namespace, "addr", "add", f"{address[6]}/64", "dev", "eth0", "nodad")
            sh("ip", "-n", namespace, "link", "set", "eth0", "up")
            for version in (4, 6):
                sh("ip", "-n", namespace, "neigh", "add", other[version], "lladdr", others_mac, "dev", "eth0")
        for version in (4, 6):
            sh("ip", "-n", self.pod, f"-{version}", "route", "add", "default", "via", FAR[version])
            prefix, nodad = (32, ()) if version == 4 else (128, ("nodad",))
            sh("ip", "-n", self.far, "addr", "add", f"{ELSEWHERE[version]}/{prefix}", "dev", "lo", *nodad)
        with inside(self.far):
            self._serve()

    def __exit__(self, *exc: object) -> None:
        self.kill()
        self._stop.set()
        if self._thread:
            self._thread.join()
        for made in self._sockets:
            made.close()
        self._delete()

    def _delete(self) -> None:
        for namespace in (self.pod, self.far):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)

    # The far end.

    def _serve(self) -> None:
        for port in TCP_PORTS:
            self._sockets.append(socket.create_server(("", port)))
            self._sockets.append(socket.create_server(("::", port), family=socket.AF_INET6))
        listeners = list(self._sockets)
        for version in (4, 6):
            for address in (FAR[version], ELSEWHERE[version]):
                for port in UDP_PORTS:
                    self._sockets.append(socket.socket(FAMILY[version], socket.SOCK_DGRAM))
                    self._sockets[-1].bind((address, port))
        datagrams = self._sockets[len(listeners) :]
        self._thread = threading.Thread(target=self._answer, args=(listeners, datagrams))
        self._thread.start()

    def _answer(self, listeners: list[socket.socket], datagrams: list[socket.socket]) -> None:
        connections: list[socket.socket] = []
        while not self._stop.is_set():
            ready, _, _ = select.select([*listeners, *datagrams, *connections], [], [], 0.1)
            for one in ready:
                if one in listeners:
                    connection, _ = one.accept()
                    connection.sendall(b"far\n")
                    connections.append(connection)
                elif one in datagrams:
                    _, client = one.recvfrom(65536)
                    one.sendto(b"far", client)
                else:
                    try:
                        data = one.recv(65536)
                        one.sendall(data)
                    except ConnectionError:
                        data = b""
                    if not data:
                        connections.remove(one)
                        one.close()
        for one in connections:
            one.close()

    # The kernel part and the proxy.

    def apply(self, config: SidecarConfig) -> None:
        self.config = config
        with inside(self.pod):
            capture.apply(config)

    def remove(self) -> None:
        assert self.config
        with inside(self.pod):
            capture.remove(self.config)

    def start(self) -> None:
        assert self.config
        path = self.directory / "config.json"
        path.write_bytes(encode(self.config))
        program = str(Path(__file__).parent / "fake_proxy.py")
        command = ["ip", "netns", "exec", self.pod, sys.executable, program, str(path)]
        self.proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.proxy.stdout
        assert self.proxy.stdout.readline() == "ready\n"

    def kill(self) -> None:
        if self.proxy:
            self.proxy.send_signal(signal.SIGCONT)
            self.proxy.kill()
            self.proxy.wait()
            assert self.proxy.stdout
            self.proxy.stdout.close()
            self.proxy = None

    def pause(self) -> None:
        assert self.proxy
        assert self.config
        self.proxy.send_signal(signal.SIGSTOP)
        time.sleep(self.config.heartbeat.timeout + 0.2)

    def resume(self) -> None:
        assert self.proxy
        self.proxy.send_signal(signal.SIGCONT)
        time.sleep(0.1)

    def alive(self) -> set[str]:
        """The families in the switch's set."""
        text = sh("ip", "netns", "exec", self.pod, "nft", "-j", "list", "set", "inet", "weir", "alive")
        (found,) = [row["set"] for row in json.loads(text)["nftables"] if "set" in row]
        return {row["elem"]["val"] for row in found.get("elem", [])}

    # The application.

    def new_socket(self, version: int, kind: socket.SocketKind, uid: int = NOBODY, gid: int = NOBODY) -> socket.socket:
        with inside(self.pod), acting_as(uid, gid):
            made = socket.socket(FAMILY[version], kind)
        made.settimeout(3)
        return made

    def connect(
        self, version: int, port: int = 80, address: str | None = None, scope: tuple[int, ...] = (), **who: int
    ) -> socket.socket:
        made = self.new_socket(version, socket.SOCK_STREAM, **who)
        try:
            made.connect((address or FAR[version], port, *scope))
        except OSError:
            made.close()
            raise
        return made

    def tcp(self, version: int, port: int = 80, address: str | None = None, **who: int) -> str:
        """Who answers a TCP connection: "far", "proxy ADDRESS PORT", or the error."""
        try:
            with self.connect(version, port, address, **who) as made:
                return made.recv(100).decode().strip()
        except OSError as error:
            return type(error).__name__

    def udp(self, version: int, port: int = 53, address: str | None = None, timeout: float = 3, **who: int) -> str:
        """Who answers a datagram."""
        with self.new_socket(version, socket.SOCK_DGRAM, **who) as made:
            made.settimeout(timeout)
            try:
                made.connect((address or FAR[version], port))
                made.send(b"?")
                return made.recv(100).decode()
            except OSError as error:
                return type(error).__name__

    @contextmanager
    def wire(self) -> Iterator[list[bytes]]:
        """What the far end's card sees arriving from the pod meanwhile, as Ethernet frames, without multicast reports and DAD."""
        frames: list[bytes] = []
        with inside(self.far):
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        with tap:
            tap.bind(("eth0", ETH_P_ALL))
            tap.setblocking(False)
            yield frames
            time.sleep(0.05)
            while True:
                try:
                    frame, (_, _, packet_type, _, _) = tap.recvfrom(65536)
                except BlockingIOError:
                    break
                if packet_type != socket.PACKET_OUTGOING and is_payload(frame):
                    frames.append(frame)


def is_payload(frame: bytes) -> bool:
    """IP, and not neighbour discovery or multicast reports (ICMPv6, also behind a hop-by-hop header)."""
    kind = frame[12:14]
    if kind == b"\x86\xdd":
        icmp = frame[54] if frame[20] == 58 else frame[62] if frame[20] == 0 else None
        return icmp is None or not 130 <= icmp <= 143
    return kind == b"\x08\x00"
