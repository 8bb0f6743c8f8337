"""DNS and UDP through the kernel's capture, beside the same queries sent directly. Needs root."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from netns.dns_lab import NOBODY_THERE, POD, RESOLVER, DNSLab
from weir_sidecar.contract.config import Action, Capture, FailureMode, Match, Rule, SidecarConfig

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root: run the tests as root"),
]

VERSIONS = [4, 6]
WITHOUT_HOLD = Capture(connect_first=False)
"""The DNS part of the sidecar alone does not hold connections."""
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
QUERIES = [
    *[(name, rdtype) for name in ("a.test.", "c1.test.", "nx.test.", "servfail.test.") for rdtype in ("A", "AAAA")],
    ("srv.test.", "SRV"),
    ("mx.test.", "MX"),
    ("txt.test.", "TXT"),
    ("soa.test.", "SOA"),
    ("192.test.", "PTR"),
    ("tlsa.test.", "CAA"),
    ("A.TeSt.", "A"),
]
SIZES = [512, 513, 1232, 1233, 4096, 16384, 32768, 65535]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DNSLab]:
    config = SidecarConfig(
        failure_mode=FailureMode.CLOSED,
        capture=WITHOUT_HOLD,
        rules=(Rule(name="no", match=Match(hosts=("no.test", "*.no.test")), action=Action.DENY),),
    )
    with DNSLab(config, tmp_path_factory.mktemp("dns")) as made:
        yield made


def ask(query: dns.message.Message, server: str, transport=dns.query.udp) -> dns.message.Message:
    """Ask; dnspython refuses an answer that does not come from `server`, or is to another question."""
    return transport(query, server, timeout=4)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("transport", [dns.query.udp, dns.query.tcp])
@pytest.mark.parametrize("options", [{}, {"use_edns": 0, "payload": 1232}, {"want_dnssec": True}])
def test_answers_are_the_resolvers(lab: DNSLab, version: int, transport, options: dict) -> None:
    before = len(lab.records())
    for name, rdtype in QUERIES:
        query = dns.message.make_query(name, rdtype, **options)
        captured = lab.in_pod(lambda query=query: ask(query, RESOLVER[version], transport))
        direct = lab.direct(lambda query=query: ask(query, RESOLVER[version], transport))
        assert captured.to_wire(want_shuffle=False) == direct.to_wire(want_shuffle=False)
        assert captured.question[0].name.labels == query.question[0].name.labels
    lab.wait_for_records(before + len(QUERIES))
    assert {record["client"]["uid"] for record in lab.records()[before:]} == {0}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", SIZES)
def test_large_answers_are_truncated_and_come_over_tcp(lab: DNSLab, version: int, size: int) -> None:
    name = f"size{size}.test."
    for payload in (512, 1232, 60000):
        query = dns.message.make_query(name, "TXT", use_edns=0 if payload > 512 else -1, payload=payload)
        reply = lab.in_pod(lambda query=query: dns.query.udp(query, RESOLVER[version], timeout=4))
        assert bool(reply.flags & dns.flags.TC) is (size > payload)
        if size <= payload:
            assert len(reply.wire) == size
    reply = lab.in_pod(lambda: dns.query.tcp(query, RESOLVER[version], timeout=4))
    direct = lab.direct(lambda: dns.query.tcp(query, RESOLVER[version], timeout=4))
    assert reply.wire == direct.wire
    assert len(reply.wire) == size


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("transport", [dns.query.udp, dns.query.tcp])
def test_service_records_lose_ech_and_h3_and_nothing_else(lab: DNSLab, version: int, transport) -> None:
    for name, rdtype in (("h.test.", "HTTPS"), ("_dns.test.", "SVCB")):
        query = dns.message.make_query(name, rdtype, use_edns=0)
        captured = lab.in_pod(lambda query=query: ask(query, RESOLVER[version], transport))
        direct = lab.direct(lambda query=query: ask(query, RESOLVER[version], transport))
        expected = [rdata.to_text().replace(",h3", "").replace(' ech="AAT+DQAA"', "") for rdata in direct.answer[0]]
        assert sorted(rdata.to_text() for rdata in captured.answer[0]) == sorted(expected)
        assert "h3" in direct.answer[0].to_text()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("transport", [dns.query.udp, dns.query.tcp])
def test_denied_names(lab: DNSLab, version: int, transport) -> None:
    name = f"x{version}{transport.__name__}.no.test"
    for rdtype in ("A", "AAAA", "HTTPS", "TXT", "ANY"):
        query = dns.message.make_query(name, rdtype, use_edns=0)
        reply = lab.in_pod(lambda query=query: ask(query, RESOLVER[version], transport))
        assert reply.rcode() == dns.rcode.NXDOMAIN
        assert reply.edns == 0
    found = lab.wait_for_records(5, host=name)
    assert {(record["decision"], record["rule"]) for record in found} == {("deny", "no")}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resolver_that_is_not_there_refuses(lab: DNSLab, version: int) -> None:
    query = dns.message.make_query("a.test.", "A").to_wire()

    def refused() -> None:
        with socket.socket(FAMILY[version], socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.connect((NOBODY_THERE[version], 53))
            sock.send(query)
            sock.recv(100)

    def reset() -> None:
        with socket.create_connection((NOBODY_THERE[version], 53), timeout=4) as sock:
            sock.sendall(len(query).to_bytes(2) + query)
            sock.recv(100)

    with pytest.raises(ConnectionRefusedError):
        lab.in_pod(refused)
    with pytest.raises(ConnectionResetError):
        lab.in_pod(reset)
    lab.wait_for_records(2, address=NOBODY_THERE[version], port=53, error="upstream_refused")


def send(lab: DNSLab, version: int, address: str, port: int, timeout: float = 4) -> bytes:
    """Send a datagram in the pod and wait for the answer on a connected socket, which hears ICMP."""

    def sent() -> bytes:
        with socket.socket(FAMILY[version], socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            sock.connect((address, port))
            sock.send(b"datagram")
            return sock.recv(100)

    return lab.in_pod(sent)


@pytest.mark.parametrize("version", VERSIONS)
def test_other_udp_is_relayed_from_the_address_that_was_asked(lab: DNSLab, version: int) -> None:
    def echoed() -> None:
        with socket.socket(FAMILY[version], socket.SOCK_DGRAM) as sock:
            sock.settimeout(4)
            for data in (b"one", b"", b"x" * 1400, b"y" * 20000):
                sock.sendto(data, (RESOLVER[version], 9999))
                answer, source = sock.recvfrom(65535)
                assert (answer, source[:2]) == (data, (RESOLVER[version], 9999))

    lab.in_pod(echoed)


@pytest.fixture
def refusing_lab(tmp_path: Path) -> Iterator[DNSLab]:
    with DNSLab(SidecarConfig(failure_mode=FailureMode.CLOSED, capture=WITHOUT_HOLD), tmp_path) as made:
        yield made


def test_refused_and_unanswered_datagrams(refusing_lab: DNSLab) -> None:
    lab = refusing_lab
    for version in VERSIONS:
        for port in (443, 9998):
            with pytest.raises(ConnectionRefusedError):
                send(lab, version, RESOLVER[version], port)
        with pytest.raises(TimeoutError):
            send(lab, version, POD[version], 15801, timeout=0.2)
    lab.sidecar.terminate()
    lab.sidecar.wait()
    for version in VERSIONS:
        (quic,) = lab.wait_for_records(1, address=RESOLVER[version], port=443)
        assert (quic["decision"], quic["reason"], quic["bytes_up"]) == ("deny", "quic_rejected", 8)
        (relayed,) = lab.wait_for_records(1, address=RESOLVER[version], port=9998)
        assert (relayed["decision"], relayed["client"]["uid"]) == ("passthrough", 0)
        (ours,) = lab.wait_for_records(1, address=POD[version], port=15801)
        assert (ours["decision"], ours["reason"]) == ("deny", "direct_to_proxy")
