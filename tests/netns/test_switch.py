"""Capture and the dead-man's switch on the real kernel, with a fake proxy that can be killed and stopped.

Who answers tells where a flow went: "far" is the far end itself, "proxy ADDRESS PORT" the proxy, with the original
destination that it saw.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from netns.capture_lab import ELSEWHERE, FAR, NOBODY, POD, Pod, inside, sh, sysctl
from weir_sidecar.contract.config import (
    DNS,
    Capture,
    CaptureMode,
    Exclude,
    FailureMode,
    Heartbeat,
    IDRange,
    OtherUDP,
    PortRange,
    QuicMode,
    SidecarConfig,
    Startup,
)
from weir_sidecar.netfilter.features import Features
from weir_sidecar.netsetup import capture

pytestmark = pytest.mark.netns
SO_MARK, SO_BINDTODEVICE = 36, 25
PROXY = 15801
HEARTBEAT = 15803
REFUSED = "ConnectionRefusedError"
BOTH = (4, 6)


def config(*, closed: bool = False, timeout: float = 1.5, **options: object) -> SidecarConfig:
    return SidecarConfig(
        heartbeat=Heartbeat(interval=0.1, timeout=timeout),
        failure_mode=FailureMode.CLOSED if closed else FailureMode.OPEN,
        # The fake proxy accepts what comes; it holds no SYN.
        capture=Capture(connect_first=False, **options),
    )


def proxied(version: int, port: int, address: str | None = None) -> str:
    return f"proxy {address or FAR[version]} {port}"


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with Pod(tmp_path) as made:
        yield made


# Who is captured.


@pytest.mark.parametrize("closed", [False, True])
def test_everything_is_captured_with_its_original_destination(pod: Pod, closed: bool) -> None:
    pod.apply(config(closed=closed))
    pod.start()
    for version in BOTH:
        for address in (FAR[version], ELSEWHERE[version]):
            assert pod.tcp(version, 80, address) == proxied(version, 80, address)
            assert pod.tcp(version, 53, address) == proxied(version, 53, address)
            assert pod.udp(version, 53, address) == proxied(version, 53, address)
            assert pod.udp(version, 123, address) == proxied(version, 123, address)
            assert pod.udp(version, 443, address) == proxied(version, 443, address)
        assert pod.tcp(version, 80, uid=0) == proxied(version, 80)
        assert pod.tcp(version, 80, uid=PROXY) == "far"
        assert pod.udp(version, 53, uid=PROXY) == "far"
        with pod.connect(version) as client:
            assert client.recv(100)
            big = os.urandom(300_000)
            client.sendall(big)
            got = b""
            while len(got) < len(big):
                got += client.recv(65536)
            assert got == big


def test_removed_everything_is_direct(pod: Pod) -> None:
    pod.apply(config(closed=True))
    pod.start()
    pod.remove()
    for version in BOTH:
        assert pod.tcp(version) == "far"
        assert pod.udp(version) == "far"


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(
    ("exclude", "flow"),
    [
        (Exclude(ports=(PortRange(8080, 8080),)), {"port": 8080}),
        (Exclude(cidrs=("10.78.0.0/16", "fd78::/16")), {"elsewhere": True}),
        (Exclude(uids=(IDRange(1000, 1010),)), {"uid": 1005}),
        (Exclude(gids=(IDRange(2000, 2000),)), {"gid": 2000}),
    ],
)
def test_exclusions(pod: Pod, closed: bool, exclude: Exclude, flow: dict[str, int]) -> None:
    pod.apply(config(closed=closed, exclude=exclude))
    pod.start()
    for version in BOTH:
        address = ELSEWHERE[version] if flow.get("elsewhere") else None
        options = {name: value for name, value in flow.items() if name != "elsewhere"}
        assert pod.tcp(version, address=address, **options) == "far"
        assert pod.tcp(version) == proxied(version, 80)
        if "port" not in flow:
            assert pod.udp(version, address=address, **options) == "far"
            assert pod.udp(version) == proxied(version, 53)


@pytest.mark.parametrize("closed", [False, True])
def test_what_an_exempt_flow_still_has_to_send_when_closed_arrives(pod: Pod, closed: bool) -> None:
    # The socket has no owner any more when the rules see these packets.
    pod.apply(config(closed=closed, exclude=Exclude(uids=(IDRange(1000, 1000),))))
    with inside(pod.far):
        server = socket.create_server(("", 7000))
    server.settimeout(3)
    with server:
        sent = 0
        with pod.connect(4, 7000, uid=1000) as client, contextlib.suppress(BlockingIOError):
            client.setblocking(False)
            while True:
                sent += client.send(b"x" * 65536)
        connection, _ = server.accept()
        connection.settimeout(3)
        with connection:
            got = 0
            while data := connection.recv(65536):
                got += len(data)
    assert got == sent


@pytest.mark.parametrize("pattern", ["eth0", "eth*"])
def test_excluded_interface(pod: Pod, pattern: str) -> None:
    pod.apply(config(closed=True, exclude=Exclude(interfaces=(pattern,))))
    assert pod.tcp(4) == pod.tcp(6) == pod.udp(4) == "far"


def test_only_captured_ports_and_dns(pod: Pod) -> None:
    pod.apply(config(ports=(PortRange(443, 443),)))
    pod.start()
    for version in BOTH:
        assert pod.tcp(version, 443) == proxied(version, 443)
        assert pod.tcp(version, 80) == "far"
        assert pod.udp(version, 123) == "far"
        assert pod.tcp(version, 53) == proxied(version, 53)
        assert pod.udp(version, 53) == proxied(version, 53)


def test_dns_that_is_not_captured(pod: Pod) -> None:
    pod.apply(config(dns=DNS(capture=False)))
    pod.start()
    assert pod.tcp(4, 53) == pod.udp(6, 53) == "far"
    assert pod.tcp(4, 80) == proxied(4, 80)


def test_udp_by_policy(pod: Pod) -> None:
    pod.apply(config(other_udp=OtherUDP.IGNORE))
    pod.start()
    assert pod.udp(4, 123) == "far"
    assert pod.udp(6, 443) == proxied(6, 443)
    pod.apply(config(other_udp=OtherUDP.IGNORE, quic=QuicMode.ALLOW))
    assert pod.udp(6, 443) == "far"
    assert pod.udp(6, 53) == proxied(6, 53)


def test_local_destinations_stay_local(pod: Pod) -> None:
    pod.apply(config(closed=True))
    for version, addresses in {4: ("127.0.0.1", POD[4]), 6: ("::1", POD[6])}.items():
        with inside(pod.pod):
            server = socket.create_server(("", 7000), family=socket.AF_INET if version == 4 else socket.AF_INET6)
        with server:
            for address in addresses:
                with pod.connect(version, 7000, address):
                    pass


def test_broadcast_and_multicast_need_no_proxy(pod: Pod) -> None:
    pod.apply(config(closed=True))
    for version, address in ((4, "10.77.0.255"), (4, "255.255.255.255"), (4, "224.0.0.251"), (6, "ff05::fb")):
        with pod.wire() as frames, pod.new_socket(version, socket.SOCK_DGRAM, 0) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            client.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0")
            client.sendto(b"hello all", (address, 5353))
        assert sum(b"hello all" in frame for frame in frames) == 1, address


def test_who_calls_in_is_answered(pod: Pod) -> None:
    pod.apply(config(closed=True))
    with inside(pod.pod):
        server = socket.create_server(("", 7000))
    with inside(pod.far):
        client = socket.socket()
    with server, client:
        client.settimeout(3)
        client.connect((POD[4], 7000))
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"welcome")
            assert client.recv(10) == b"welcome"


def test_other_protocols(pod: Pod) -> None:
    def send_gre(version: int) -> None:
        with inside(pod.pod):
            made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_RAW, 47)
        with made:
            made.sendto(b"\0" * 8, (FAR[version], 0))

    pod.apply(config(closed=True, other_protocols=True))
    with pod.wire() as frames:
        send_gre(4)
        send_gre(6)
    assert len(frames) == 2
    pod.apply(config(other_protocols=False))
    with pod.wire() as frames:
        for version in BOTH:
            with pytest.raises(PermissionError):
                send_gre(version)
    assert frames == []
    # Neighbours are still found: the kernel sends ICMPv6 by itself.
    sh("ip", "-n", pod.pod, "neigh", "del", FAR[6], "dev", "eth0")
    assert pod.tcp(6) == "far"


def test_link_local_needs_no_proxy_and_closed_refuses_it(pod: Pod) -> None:
    with inside(pod.pod):
        scope = (0, socket.if_nametoindex("eth0"))

    def reached() -> str:
        try:
            with pod.connect(6, 80, "fe80::ff:fe00:1", scope) as client:
                return client.recv(100).decode().strip()
        except OSError as error:
            return type(error).__name__

    deadline = time.monotonic() + 10
    while reached() != "far":  # duplicate address detection
        assert time.monotonic() < deadline
        time.sleep(0.2)
    pod.apply(config())
    pod.start()
    assert reached() == "far"
    pod.apply(config(closed=True))
    assert reached() == REFUSED


# The switch.


@pytest.mark.parametrize("features", [Features(), Features(dup=False)])
def test_before_the_first_heartbeat_everything_is_direct(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, features: Features
) -> None:
    monkeypatch.setattr(capture, "detect", lambda: features)
    pod.apply(config())
    for version in BOTH:
        assert pod.tcp(version) == "far"
        assert pod.udp(version) == "far"


def test_killed_the_next_flow_is_direct(pod: Pod, note: list[str]) -> None:
    pod.apply(config())
    for version in BOTH:
        for port, ask in ((80, pod.tcp), (53, pod.udp), (443, pod.udp)):
            pod.start()
            assert ask(version, port) == proxied(version, port)
            pod.kill()
            began = time.perf_counter()
            answer = ask(version, port)
            took = (time.perf_counter() - began) * 1000
            assert answer == "far"
            note.append(
                f"after kill -9: next {ask.__name__} to port {port} over IPv{version} answered in {took:.2f} ms"
            )
            assert ask(version, port) == "far"


def test_killed_without_dup_the_client_sends_again(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "detect", lambda: Features(dup=False))
    pod.apply(config())
    pod.start()
    assert pod.tcp(4) == proxied(4, 80)
    pod.kill()
    assert pod.tcp(4) == "far"
    assert pod.udp(4) == "far"


def test_large_datagrams_are_sent_again_whole(pod: Pod) -> None:
    pod.apply(config())
    for version in BOTH:
        pod.start()
        pod.kill()
        with pod.new_socket(version, socket.SOCK_DGRAM) as client:
            client.sendto(b"x" * 4000, (FAR[version], 123))
            assert client.recv(100) == b"far"


def test_restarted_new_flows_are_captured_again(pod: Pod) -> None:
    pod.apply(config())
    pod.start()
    pod.kill()
    assert pod.tcp(4) == "far"
    direct = pod.connect(4)
    pod.start()
    with direct:
        assert pod.tcp(4) == proxied(4, 80)
        assert direct.recv(10) == b"far\n"
        direct.sendall(b"still")
        assert direct.recv(10) == b"still"


def test_stalled_new_flows_are_direct_and_old_ones_go_on(pod: Pod) -> None:
    pod.apply(config())
    pod.start()
    for version in BOTH:
        with pod.connect(version) as old, pod.new_socket(version, socket.SOCK_DGRAM) as resolver:
            assert old.recv(100).startswith(b"proxy")
            resolver.connect((FAR[version], 53))
            resolver.send(b"?")
            assert resolver.recv(100).startswith(b"proxy")
            pod.pause()
            assert pod.alive() == set()
            assert pod.tcp(version) == "far"
            assert pod.udp(version) == "far"
            resolver.send(b"?")  # from the same port: each query is decided for itself
            assert resolver.recv(100) == b"far"
            old.sendall(b"patience")
            pod.resume()
            assert old.recv(100) == b"patience"
            assert pod.tcp(version) == proxied(version, 80)
            resolver.send(b"?")
            assert resolver.recv(100).startswith(b"proxy")


def test_flows_that_died_with_the_proxy_are_reset(pod: Pod) -> None:
    pod.apply(config())
    for version in BOTH:
        pod.start()
        with pod.connect(version) as client, pod.wire() as frames:
            assert client.recv(100).startswith(b"proxy")
            pod.kill()
            assert client.recv(100) == b""
            with pytest.raises(ConnectionError):  # noqa: PT012  the first send only provokes the reset
                client.sendall(b"x")
                time.sleep(0.05)
                client.sendall(b"x")
        assert frames == []


def test_what_a_dead_flow_sends_much_later_is_reset_too(pod: Pod) -> None:
    # By then the kernel has forgotten the sockets that it closed for the proxy.
    sysctl(pod.pod, "net.ipv4.tcp_fin_timeout", 1)
    pod.apply(config(timeout=60))
    pod.start()
    with pod.connect(4) as client, pod.connect(6) as client6, pod.wire() as frames:
        pod.kill()
        time.sleep(2.5)
        for one in (client, client6):
            with pytest.raises(ConnectionError):  # noqa: PT012  the first send only provokes the reset
                one.sendall(b"x")
                time.sleep(0.05)
                one.sendall(b"x")
        assert pod.alive() == {"ipv4", "ipv6"}  # it is a SYN, not the past, that opens the switch
    assert frames == []


def test_a_stalled_backlog_overflows_to_the_far_end(pod: Pod) -> None:
    pod.apply(config(timeout=0.5))
    pod.start()
    assert pod.proxy
    pod.proxy.send_signal(signal.SIGSTOP)
    clients = [pod.new_socket(4, socket.SOCK_STREAM) for _ in range(20)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex((FAR[4], 80))
    time.sleep(1.5)  # a SYN is sent again after 1 s
    pod.resume()
    answers = []
    for client in clients:
        with client:
            client.settimeout(3)
            answers.append(client.recv(100).split()[0])
    assert set(answers) == {b"far", b"proxy"}


def test_only_the_proxy_can_beat(pod: Pod) -> None:
    pod.apply(config())
    pod.start()
    assert pod.tcp(4) == proxied(4, 80)
    pod.pause()
    for uid in (0, NOBODY, PROXY - 1):
        for version, address in ((4, "127.0.0.1"), (6, "::1"), (4, POD[4]), (4, FAR[4])):
            with pod.new_socket(version, socket.SOCK_DGRAM, uid) as beat:
                beat.sendto(b"", (address, HEARTBEAT))
    with inside(pod.far), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as beat:
        beat.sendto(b"", (POD[4], HEARTBEAT))
    assert pod.alive() == set()
    assert pod.tcp(4) == "far"
    with pod.new_socket(4, socket.SOCK_DGRAM, PROXY) as beat:
        beat.sendto(b"", ("127.0.0.1", HEARTBEAT))
    assert pod.alive() == {"ipv4"}


def test_a_new_policy_opens_no_gap(pod: Pod) -> None:
    pod.apply(config())
    pod.start()
    for port in range(20):
        pod.apply(config(exclude=Exclude(ports=(PortRange(9000 + port, 9000 + port),))))
        assert pod.tcp(4) == proxied(4, 80)
        assert pod.udp(6) == proxied(6, 53)


def test_flows_from_before_the_rules_go_on_when_open(pod: Pod) -> None:
    with pod.connect(4) as old, pod.connect(6) as old6:
        pod.apply(config())
        pod.start()
        for client in (old, old6):
            assert client.recv(10) == b"far\n"
            client.sendall(b"on and on")
            assert client.recv(10) == b"on and on"


# No way round.


def test_marks_set_by_an_application_exempt_nothing(pod: Pod) -> None:
    for closed in (False, True):
        pod.apply(config(closed=closed))
        pod.start()
        for mark in (0x20000000, 0x30000000, 0x2FFFFFFF, 0x7):
            with pod.new_socket(4, socket.SOCK_STREAM, 0) as client:
                client.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
                client.connect((FAR[4], 80))
                assert client.recv(100).startswith(b"proxy")
            with pod.new_socket(4, socket.SOCK_DGRAM, 0) as client:
                client.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
                client.sendto(b"?", (FAR[4], 53))
                assert client.recv(100).startswith(b"proxy")
        with pod.wire() as frames, pod.new_socket(4, socket.SOCK_DGRAM, 0) as client:
            client.setsockopt(socket.SOL_SOCKET, SO_MARK, 0x10000000)
            with pytest.raises(PermissionError):
                client.sendto(b"?", (FAR[4], 53))
        assert frames == []
        pod.kill()


@pytest.mark.parametrize("closed", [False, True])
def test_a_udp_port_that_changes_hands_is_decided_again(pod: Pod, closed: bool) -> None:
    pod.apply(config(closed=closed, exclude=Exclude(uids=(IDRange(1000, 1000),))))
    pod.start()

    def ask(version: int, uid: int, port: int) -> str:
        with pod.new_socket(version, socket.SOCK_DGRAM, uid) as client:
            client.bind(("", port))
            client.connect((FAR[version], 123))
            client.send(b"?")
            return client.recv(100).decode()

    for version in BOTH:
        for port, direct in ((5001, 1000), (5002, PROXY)):
            assert ask(version, direct, port) == "far"
            assert ask(version, NOBODY, port) == proxied(version, 123)
        assert ask(version, PROXY, port) == "far"


def test_bound_to_loopback_nothing_leaves(pod: Pod) -> None:
    pod.apply(config(closed=True))
    with pod.wire() as frames, pod.new_socket(4, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"lo")
        client.sendto(b"?", (FAR[4], 53))
    assert frames == []


def test_an_answer_that_comes_late_keeps_the_flow_captured(pod: Pod) -> None:
    pod.apply(config())
    pod.start()
    sysctl(pod.pod, "net.netfilter.nf_conntrack_udp_timeout", 1)
    for version in BOTH:
        with pod.new_socket(version, socket.SOCK_DGRAM) as client, pod.wire() as frames:
            client.connect((FAR[version], 123))
            client.send(b"later")
            assert client.recv(100).startswith(b"proxy")
            client.send(b"?")
            assert client.recv(100).startswith(b"proxy")
        assert frames == []


def test_errors_about_captured_flows_do_not_leave(pod: Pod) -> None:
    for closed in (False, True):
        pod.apply(config(closed=closed))
        pod.start()
        with pod.wire() as frames:
            for version in BOTH:
                with pod.new_socket(version, socket.SOCK_DGRAM) as client:
                    client.sendto(b"later", (FAR[version], 123))
            time.sleep(3.2)  # the answers meet closed ports, and the kernel says so
        assert frames == []
        if not closed:
            assert pod.alive() == {"ipv4", "ipv6"}
        pod.kill()


# Closed.


def frames_not_from(ports: set[int], frames: list[bytes]) -> list[bytes]:
    """Without the TCP segments (IPv4 without options, or IPv6) from these source ports."""
    return [
        frame
        for frame in frames
        if int.from_bytes(frame[34:36] if frame[12:14] == b"\x08\x00" else frame[54:56]) not in ports
    ]


@pytest.mark.parametrize("mode", list(CaptureMode))
@pytest.mark.parametrize("dup", [True, False])
def test_closed_leaks_nothing(pod: Pod, monkeypatch: pytest.MonkeyPatch, mode: CaptureMode, dup: bool) -> None:
    monkeypatch.setattr(capture, "detect", lambda: Features(dup=dup))
    refused = (REFUSED, "PermissionError") if dup or mode is CaptureMode.REDIRECT else (REFUSED, "TimeoutError")
    # Flows from before: TCP, and UDP that conntrack knows.
    sh("ip", "netns", "exec", pod.pod, "nft", "add table inet t; add chain inet t c { type filter hook output"
       " priority 0; }; add rule inet t c ct state new accept")  # fmt: skip
    before = [pod.connect(version) for version in BOTH]
    asked = [pod.new_socket(version, socket.SOCK_DGRAM) for version in BOTH]
    for version, client in zip(BOTH, asked, strict=True):
        client.settimeout(0.2)
        client.connect((FAR[version], 123))
        client.send(b"?")
        assert client.recv(10) == b"far"
    time.sleep(0.1)
    with pod.wire() as frames:
        pod.apply(config(closed=True, mode=mode))
        for client in before:
            with pytest.raises(ConnectionError):  # noqa: PT012  the first send only provokes the reset
                client.sendall(b"x")
                time.sleep(0.05)
                client.sendall(b"x")
            client.close()
        for client in asked:
            with pytest.raises(OSError):  # noqa: PT012  an ICMP error comes with the next call
                client.send(b"x")
                client.recv(10)
            client.close()
        own: set[int] = set()
        for _ in range(2):
            for version in BOTH:
                assert pod.tcp(version) == REFUSED
                assert pod.tcp(version, 53) == REFUSED
                assert pod.udp(version, 53, timeout=0.3) in refused
                assert pod.udp(version, 443, timeout=0.3) in refused
                assert pod.udp(version, 123, timeout=0.3) in refused
            pod.start()
            clients = [pod.connect(version) for version in BOTH]
            for client in clients:
                assert client.recv(100).startswith(b"proxy")
                client.sendall(b"dial\n")
                own.add(int(client.recv(100)))
                client.sendall(b"x")
            pod.kill()
            for client in clients:
                client.close()
        pod.apply(config(closed=True, mode=mode, exclude=Exclude(ports=(PortRange(9, 9),))))
        assert pod.tcp(4) == REFUSED
    assert own
    assert frames
    assert frames_not_from(own, frames) == []


@pytest.mark.parametrize("mode", list(CaptureMode))
def test_closed_with_startup_open_is_direct_until_the_proxy_is_ready_and_never_again(
    pod: Pod, mode: CaptureMode
) -> None:
    waiting = msgspec.structs.replace(config(closed=True, mode=mode), startup=Startup.OPEN)
    pod.apply(waiting)
    for version in BOTH:
        assert pod.tcp(version) == "far"
        assert pod.udp(version, 53) == "far"
    early = [pod.connect(version) for version in BOTH]
    pod.start()
    for version, client in zip(BOTH, early, strict=True):
        assert client.recv(10) == b"far\n"
        client.sendall(b"still direct")
        assert client.recv(100) == b"still direct"
        client.close()
        assert pod.tcp(version) == proxied(version, 80)
        assert pod.udp(version, 53).startswith("proxy")
    pod.kill()
    with inside(pod.pod):
        capture.apply(waiting)  # again, as an init container may: the rules are there, and know that it began
    with pod.wire() as frames:
        for version in BOTH:
            assert pod.tcp(version) == REFUSED
            assert pod.udp(version, 53) in (REFUSED, "PermissionError")
    assert frames == []


def test_closed_with_startup_open_only_the_proxy_says_that_it_is_ready(pod: Pod) -> None:
    pod.apply(msgspec.structs.replace(config(closed=True), startup=Startup.OPEN))
    with pod.new_socket(4, socket.SOCK_DGRAM) as liar:
        liar.sendto(b"weir", ("127.0.0.1", HEARTBEAT))
    assert pod.tcp(4) == "far"
    # Also for a family in which loopback speaks nothing, and no heart beats.
    with pod.new_socket(4, socket.SOCK_DGRAM, uid=PROXY) as beat:
        beat.sendto(b"weir", ("127.0.0.1", HEARTBEAT))
    for version in BOTH:
        assert pod.tcp(version) == REFUSED


def test_closed_from_open_cuts_what_went_direct(pod: Pod) -> None:
    pod.apply(config())
    with pod.connect(4) as direct:
        assert direct.recv(10) == b"far\n"
        with pod.wire() as frames:
            pod.apply(config(closed=True))
            with pytest.raises(ConnectionError):  # noqa: PT012  the first send only provokes the reset
                direct.sendall(b"x")
                time.sleep(0.05)
                direct.sendall(b"x")
        assert frames == []


def test_closed_a_missing_policy_route_leaks_nothing(pod: Pod) -> None:
    pod.apply(config(closed=True))
    sh("ip", "-n", pod.pod, "rule", "del", "priority", "15801")
    with pod.wire() as frames, pod.new_socket(4, socket.SOCK_DGRAM) as client, pytest.raises(OSError):
        client.sendto(b"?", (FAR[4], 53))
    assert frames == []


def test_closed_a_stalled_proxy_is_waited_for(pod: Pod) -> None:
    pod.apply(config(closed=True))
    pod.start()
    pod.pause()
    with pod.connect(4) as client:
        pod.resume()
        assert client.recv(100).startswith(b"proxy")


def test_closed_forwards_nothing(pod: Pod) -> None:
    sysctl(pod.pod, "net.ipv4.ip_forward", 1)
    sh("ip", "-n", pod.far, "route", "add", "10.79.0.1/32", "via", POD[4])
    pod.apply(config(closed=True))
    with pod.wire() as frames, inside(pod.far), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"?", ("10.79.0.1", 53))
    sent_back = [frame for frame in frames if frame[30:34] == bytes([10, 79, 0, 1])]
    assert sent_back == []


# Redirect.


def test_redirect_captures_tcp_and_dns(pod: Pod) -> None:
    pod.apply(config(mode=CaptureMode.REDIRECT))
    pod.start()
    for version, local in ((4, "127.0.0.1"), (6, "::1")):
        assert pod.tcp(version) == proxied(version, 80)
        assert pod.tcp(version, 53) == proxied(version, 53)
        assert pod.udp(version, 53) == f"proxy {local} {PROXY}"  # NAT tells UDP no original destination
        assert pod.udp(version, 123) == "far"
        assert pod.udp(version, 443) == "PermissionError"
        assert pod.tcp(version, uid=PROXY) == "far"


def test_redirect_loses_one_connection_and_opens(pod: Pod) -> None:
    pod.apply(config(mode=CaptureMode.REDIRECT))
    for version in BOTH:
        for ask, port in ((pod.tcp, 80), (pod.udp, 53)):
            pod.start()
            assert ask(version, port).startswith("proxy")
            pod.kill()
            assert ask(version, port) == REFUSED
            assert ask(version, port) == "far"
            assert pod.udp(version, 443) == "far"


# Where it runs.


@pytest.mark.parametrize("value", [0, 1, 2])
def test_reverse_path_filters_do_not_matter(pod: Pod, value: int) -> None:
    for name in ("all", "default", "lo", "eth0"):
        sysctl(pod.pod, f"net.ipv4.conf.{name}.rp_filter", value)
    pod.apply(config())
    pod.start()
    assert pod.tcp(4) == proxied(4, 80)
    assert pod.udp(4) == proxied(4, 53)
    pod.kill()
    assert pod.tcp(4) == "far"
    assert pod.udp(4) == "far"


def test_reflected_marks_do_not_matter(pod: Pod) -> None:
    names = ("net.ipv4.tcp_fwmark_accept", "net.ipv4.fwmark_reflect", "net.ipv6.fwmark_reflect")
    for name in (*names, "net.ipv4.conf.all.src_valid_mark"):
        sysctl(pod.pod, name, 1)
    pod.apply(config())
    pod.start()
    for version in BOTH:
        assert pod.tcp(version) == proxied(version, 80)
        assert pod.udp(version) == proxied(version, 53)
    pod.kill()
    assert pod.tcp(4) == "far"
    pod.apply(config(closed=True))
    assert pod.tcp(4) == REFUSED
    assert pod.udp(6) == REFUSED


def test_without_ipv6(pod: Pod) -> None:
    sysctl(pod.pod, "net.ipv6.conf.all.disable_ipv6", 1)
    pod.apply(config())
    pod.start()
    assert pod.tcp(4) == proxied(4, 80)
    assert pod.udp(4) == proxied(4, 53)


def test_only_ipv6(pod: Pod) -> None:
    sh("ip", "-n", pod.pod, "-4", "addr", "flush", "dev", "eth0")
    pod.apply(config())
    pod.start()
    assert pod.tcp(6) == proxied(6, 80)
    assert pod.udp(6) == proxied(6, 53)
    pod.kill()
    assert pod.tcp(6) == "far"


def test_the_proxy_port_itself_is_no_way_out(pod: Pod) -> None:
    pod.apply(config())
    pod.start()
    for version, addresses in {4: ("127.0.0.1", POD[4]), 6: ("::1", POD[6])}.items():
        for address in addresses:
            assert pod.tcp(version, PROXY, address) == proxied(version, PROXY, address)
    # A port of that number elsewhere is like any other.
    assert pod.tcp(4, PROXY) == proxied(4, PROXY)
    with inside(pod.far), socket.create_connection((POD[4], PROXY), timeout=3) as client:
        assert client.recv(100).decode().strip() == proxied(4, PROXY, POD[4])


def test_an_application_cannot_take_the_proxy_port_nor_its_packets(pod: Pod) -> None:
    pod.apply(config())
    pod.start()
    for version, local in ((4, "127.0.0.1"), (6, "::1")):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with pod.new_socket(version, kind) as thief:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with pytest.raises(OSError, match="in use"):
                    thief.bind((local, PROXY))
    pod.kill()
    with pod.new_socket(4, socket.SOCK_STREAM) as thief:
        thief.bind(("0.0.0.0", PROXY))
        thief.listen()
        assert pod.tcp(4) == "far"  # not transparent: tproxy does not take it
