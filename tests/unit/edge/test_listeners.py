"""The listeners have the options that capture relies on, and say what to do when they cannot be made."""

import errno
import fcntl
import os
import socket
import subprocess
import traceback
from contextlib import closing

import pytest

from weir_sidecar.contract.config import Capture, CaptureMode, Ports, SidecarConfig
from weir_sidecar.edge import listeners as module
from weir_sidecar.edge.listeners import ListenError, open_listeners, original_destination

needs_raw = pytest.mark.skipif(os.geteuid() != 0, reason="transparent sockets need root or NET_RAW")


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def config(mode=CaptureMode.TPROXY, port=None):
    port = port or free_port()
    return SidecarConfig(capture=Capture(mode=mode), ports=Ports(tcp=port, udp=port))


@needs_raw
def test_transparent_listeners_of_both_families():
    wanted = config()
    opened = open_listeners(wanted)
    try:
        assert opened.ipv6
        assert [s.family for s in (*opened.tcp, *opened.udp)] == [socket.AF_INET, socket.AF_INET6] * 2
        for sock in (*opened.tcp, *opened.udp):
            assert sock.getsockname()[:2] == ("0.0.0.0" if sock.family == socket.AF_INET else "::", wanted.ports.tcp)
            assert not sock.getblocking()
            assert fcntl.fcntl(sock, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            level, option = (socket.IPPROTO_IP, 19) if sock.family == socket.AF_INET else (socket.IPPROTO_IPV6, 75)
            assert sock.getsockopt(level, option) == 1
        assert opened.udp[0].getsockopt(socket.IPPROTO_IP, module.IP_RECVORIGDSTADDR) == 1
        assert opened.udp[1].getsockopt(socket.IPPROTO_IPV6, module.IPV6_RECVORIGDSTADDR) == 1
        assert all(s.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) for s in (opened.tcp[1], opened.udp[1]))
    finally:
        opened.close()
    assert all(s.fileno() == -1 for s in (*opened.tcp, *opened.udp))


def test_redirect_needs_no_capability_and_asks_for_the_redirected_address():
    opened = open_listeners(config(CaptureMode.REDIRECT))
    try:
        assert opened.tcp[0].getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT) == 0
        assert opened.udp[0].getsockopt(socket.IPPROTO_IP, socket.IP_PKTINFO) == 1
        assert opened.udp[1].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO) == 1
    finally:
        opened.close()


@pytest.mark.parametrize("mode", list(CaptureMode))
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_connection_that_was_not_redirected_was_for_the_proxy_itself(mode, address):
    wanted = config(CaptureMode.REDIRECT)
    opened = open_listeners(wanted)
    asked = SidecarConfig(capture=Capture(mode=mode), ports=wanted.ports)
    try:
        with closing(socket.create_connection((address, wanted.ports.tcp))):
            listener = opened.tcp[":" in address]
            listener.setblocking(True)
            with closing(listener.accept()[0]) as accepted:
                assert original_destination(accepted, asked) == (address, wanted.ports.tcp)
    finally:
        opened.close()


def test_a_taken_port_is_named_with_what_to_do_and_nothing_stays_open():
    port = free_port()
    message = rf"TCP listener 0\.0\.0\.0 port {port}: Address already in use; stop"
    with closing(socket.create_server(("0.0.0.0", port))), pytest.raises(ListenError, match=message):
        open_listeners(config(CaptureMode.REDIRECT, port))
    open_listeners(config(CaptureMode.REDIRECT, port)).close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "::", "::1"])
def test_nobody_can_bind_beside_us_and_take_what_is_captured(kind, address):
    wanted = config(CaptureMode.REDIRECT)
    opened = open_listeners(wanted)
    try:
        with closing(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)) as other:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                other.setsockopt(socket.SOL_SOCKET, option, 1)
            if ":" in address:
                other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            with pytest.raises(OSError, match="Address already in use"):
                other.bind((address, wanted.ports.tcp))
    finally:
        opened.close()


@needs_raw
def test_without_the_capability_it_names_the_capability():
    os.seteuid(45678)
    try:
        with pytest.raises(ListenError, match="needs the capability NET_RAW"):
            open_listeners(config())
    finally:
        os.seteuid(0)


def test_without_ipv6_there_is_ipv4_and_the_result_says_so(monkeypatch):
    wanted = config(CaptureMode.REDIRECT)
    real = socket.socket

    def only_ipv4(family, *args, **kwargs):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *args, **kwargs)

    monkeypatch.setattr(module.socket, "socket", only_ipv4)
    opened = open_listeners(wanted)
    opened.close()
    assert (len(opened.tcp), len(opened.udp), opened.ipv6) == (1, 1, False)


REDIRECT = """
table inet t {
  chain out { type nat hook output priority -100; tcp dport 9999 redirect to :15801; }
}
"""
TPROXY = """
table inet t {
  chain out { type route hook output priority -150; tcp dport 9999 meta mark set 1; }
  chain pre { type filter hook prerouting priority -150; meta mark 1 tcp dport 9999 tproxy to :15801 accept; }
}
"""
ROUTES = (
    "ip link set lo up",
    "ip link add d0 type veth peer name d1",
    "ip link set d1 up",
    "ip link set d0 up",
    "ip addr add 192.0.2.1/24 dev d0",
    "ip addr add 2001:db8::1/64 dev d0 nodad",
    "ip rule add fwmark 1 lookup 77",
    "ip route add local default dev lo table 77",
    "ip -6 rule add fwmark 1 lookup 77",
    "ip -6 route add local default dev lo table 77",
)


@pytest.mark.netns
@pytest.mark.parametrize(("mode", "rules"), [(CaptureMode.REDIRECT, REDIRECT), (CaptureMode.TPROXY, TPROXY)])
@pytest.mark.parametrize("address", ["192.0.2.9", "2001:db8::9"])
def test_a_captured_connection_says_where_it_was_going(mode, rules, address):
    """In a namespace of a child of its own, which ends with it."""
    child = os.fork()
    if child == 0:
        try:
            os.unshare(os.CLONE_NEWNET)
            for command in ROUTES:
                subprocess.run(command.split(), check=True)
            subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
            wanted = SidecarConfig(capture=Capture(mode=mode))
            opened = open_listeners(wanted)
            with closing(socket.create_connection((address, 9999), timeout=10)):
                listener = opened.tcp[":" in address]
                listener.settimeout(10)
                accepted = listener.accept()[0]
                assert original_destination(accepted, wanted) == (address, 9999)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
