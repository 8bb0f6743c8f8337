"""With interception on and off, an application sees the same: bodies, ends, pauses, failures.

Every probe runs once directly and once under `weir run`, all in one run of each; a test looks at one of them.
"""

from typing import Any

import pytest

from lab.lab import RAW, RAW6, WEB, Lab
from lab.network import BLACKHOLE, UNREACHABLE
from lab.policy import Policy
from lab.probing import Probe, Probed, run_probes
from lab.raw_servers import BANNER, CLOSED, NO_HANDSHAKE, TLS_OFFSET

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]

MIB = 1024 * 1024
LARGE = 1024 * MIB
SIZES = (1, 1000, 65537, 16 * MIB)
SHORT = 10000
SHORT_TLS = 2000
BANNERS = 20
RAW_HOST = "raw.weir.test"

# 70 names of 240 bytes are more than one record of 16 KiB; the last is the one the origin speaks.
LARGE_ALPN = [*(f"x{number:03}-" + "x" * 235 for number in range(70)), "http/1.1"]


def _bodies(ca: str) -> list[Probe]:
    probes = []
    for direction in ("down", "up"):
        for size in (*SIZES, LARGE):
            alone = size == LARGE
            for scheme, host in (("https", "body.tls13.weir.test"), ("http", "body.tls.weir.test")):
                args = {"url_host": host, "scheme": scheme, "size": size, "ca": ca, "direction": direction}
                if not (alone and scheme == "http"):
                    probes.append(Probe(f"{scheme}-{direction}-{size}", "http_body", args, alone))
            args = {"address": RAW, "port": 19 if direction == "down" else 9, "size": size, "direction": direction}
            probes.append(Probe(f"tcp-{direction}-{size}", "tcp_body", args, alone))
        args = {"url_host": "body.tls12.weir.test", "scheme": "https", "size": 16 * MIB, "ca": ca}
        probes.append(Probe(f"https12-{direction}-{16 * MIB}", "http_body", {**args, "direction": direction}))
    for label in ("tls12", "tls13"):
        args = {"host": f"body.{label}.weir.test", "ca": ca}
        probes.append(Probe(f"http1-dialogue-{label}", "http1_dialogue", args))
        probes.append(Probe(f"http2-streams-{label}", "http2_streams", {**args, "streams": 10, "size": MIB}))
    return probes


def _pauses(ca: str) -> list[Probe]:
    plain = {"address": RAW, "host": None, "ca": ca}
    tls = {"address": RAW, "host": RAW_HOST, "ca": ca}
    odd = {"address": WEB["tls"], "host": "odd.tls.weir.test", "ca": ca}
    return [
        Probe("tls-half-close", "tls_half_close", {**tls, "port": 9 + TLS_OFFSET, "size": MIB}),
        Probe("drops", "drops", {**plain, "port": 4005}),
        Probe("tls-drops", "drops", {**tls, "port": 4005 + TLS_OFFSET}),
        Probe("slow-sender", "slow_sender", {**plain, "port": 7}),
        Probe("tls-slow-sender", "slow_sender", {**tls, "port": 7 + TLS_OFFSET}),
        Probe("banner", "banner", {"address": RAW, "port": 25, "times": BANNERS}, alone=True),
        Probe("hello-in-4-segments", "odd_hello", {**odd, "segments": 4, "alpn": ["http/1.1"]}),
        Probe("hello-of-16-kib", "odd_hello", {**odd, "segments": 1, "alpn": LARGE_ALPN}),
        Probe("hello-of-16-kib-in-4-segments", "odd_hello", {**odd, "segments": 4, "alpn": LARGE_ALPN}),
        Probe("odd-port", "slow_sender", {**plain, "port": 31337}),
        Probe("odd-port-ipv6", "slow_sender", {**plain, "address": RAW6, "port": 31337}),
        Probe("short", "short_connections", {**plain, "port": 7, "number": SHORT}, alone=True),
        Probe("short-tls", "short_connections", {**tls, "port": 7 + TLS_OFFSET, "number": SHORT_TLS}, alone=True),
    ]


FAILURES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "refused": ({"address": RAW, "port": CLOSED}, ["", "ECONNREFUSED"]),
    "refused-ipv6": ({"address": RAW6, "port": CLOSED}, ["", "ECONNREFUSED"]),
    "refused-tls": ({"address": RAW, "port": CLOSED, "host": RAW_HOST}, ["", "ECONNREFUSED"]),
    "refused-http": ({"address": RAW, "port": 80, "say": "GET / HTTP/1.1\r\nhost: raw\r\n\r\n"}, ["", "ECONNREFUSED"]),
    "unreachable": ({"address": UNREACHABLE, "port": 80}, ["", "EHOSTUNREACH"]),
    "reset-at-once": ({"address": RAW, "port": 4001}, ["", "ECONNRESET"]),
    "reset-after-request": ({"address": RAW, "port": 4002, "say": "x\n"}, ["", "ECONNRESET"]),
    "reset-in-answer": ({"address": RAW, "port": 4003, "say": "x\n"}, ["half an ans", "ECONNRESET"]),
    "reset-in-handshake": ({"address": RAW, "port": 4001, "host": RAW_HOST}, ["", "ECONNRESET"]),
    "tls-reset-after-request": (
        {"address": RAW, "port": 4002 + TLS_OFFSET, "host": RAW_HOST, "say": "x\n"},
        ["", "ECONNRESET"],
    ),
    "tls-reset-in-answer": (
        {"address": RAW, "port": 4003 + TLS_OFFSET, "host": RAW_HOST, "say": "x\n"},
        ["half an ans", "ECONNRESET"],
    ),
    "never-answers": ({"address": RAW, "port": 4004, "say": "x\n"}, ["", "timeout"]),
    "never-answers-tls": (
        {"address": RAW, "port": 4004 + TLS_OFFSET, "host": "silent.raw.weir.test", "say": "x\n"},
        ["", "timeout"],
    ),
    "never-shakes-hands": ({"address": RAW, "port": NO_HANDSHAKE, "host": "mute.raw.weir.test"}, ["", "timeout"]),
    "never-accepts": ({"address": BLACKHOLE, "port": 80}, ["", "timeout"]),
}
"""What fails, and how a client is to see it."""

SAME = ("tls-half-close", "drops", "tls-drops", "slow-sender", "tls-slow-sender", "odd-port", "odd-port-ipv6")
HELLOS = ("hello-in-4-segments", "hello-of-16-kib", "hello-of-16-kib-in-4-segments")
BODIES = (
    *(f"{scheme}-{way}-{size}" for scheme in ("https", "http", "tcp") for way in ("down", "up") for size in SIZES),
    *(f"{scheme}-{way}-{LARGE}" for scheme in ("https", "tcp") for way in ("down", "up")),
    *(f"https12-{way}-{16 * MIB}" for way in ("down", "up")),
    *(f"{kind}-{label}" for kind in ("http1-dialogue", "http2-streams") for label in ("tls12", "tls13")),
)


def _probes(lab: Lab) -> list[Probe]:
    ca = str(lab.pki.ca_file)
    defaults = {"host": None, "ca": ca, "say": ""}
    failures = [Probe(name, "talk", {**defaults, **args}) for name, (args, _) in FAILURES.items()]
    certificate = {"host": "with.mtls.weir.test", "ca": ca, "certificate": str(lab.client_certificate)}
    without = {"host": "without.mtls.weir.test", "ca": ca, "certificate": None}
    mtls = [
        Probe("client-certificate", "client_certificate", certificate),
        Probe("no-client-certificate", "client_certificate", without),
    ]
    return [*failures, *mtls, *_pauses(ca), *_bodies(ca)]


@pytest.fixture(scope="module")
def direct(lab: Lab) -> Probed:
    return run_probes(lab, _probes(lab), None, timeout=200)


@pytest.fixture(scope="module")
def proxied(weir_lab: Lab) -> Probed:
    return run_probes(weir_lab, _probes(weir_lab), Policy(root=weir_lab.pki.ca_file), timeout=280)


@pytest.mark.parametrize("body", BODIES)
def test_bodies_arrive_whole(direct: Probed, proxied: Probed, body: str, note: list[str]) -> None:
    assert "failed" not in str(direct.outcome(body))
    assert proxied.outcome(body) == direct.outcome(body)
    if body.endswith(str(LARGE)):
        note.append(f"1 GiB, {body}: direct {direct.seconds(body):.2f} s, with Weir {proxied.seconds(body):.2f} s")


@pytest.mark.parametrize("probe", SAME)
def test_halves_and_pauses_are_kept(direct: Probed, proxied: Probed, probe: str) -> None:
    assert "failed" not in str(direct.outcome(probe))
    assert proxied.outcome(probe) == direct.outcome(probe)


def test_a_server_that_speaks_first_is_heard(direct: Probed, proxied: Probed, note: list[str]) -> None:
    assert direct.outcome("banner") == {(BANNER + b"221 bye\r\n").decode(): BANNERS}
    assert proxied.outcome("banner") == direct.outcome("banner")
    each = [probed.seconds("banner") / BANNERS * 1000 for probed in (direct, proxied)]
    note.append(f"SMTP greeting and goodbye: direct {each[0]:.1f} ms, with Weir {each[1]:.1f} ms")


@pytest.mark.parametrize(("probe", "number"), [("short", SHORT), ("short-tls", SHORT_TLS)])
def test_no_short_connection_fails(direct: Probed, proxied: Probed, probe: str, number: int, note: list[str]) -> None:
    assert direct.outcome(probe) == {"echoed": number}
    assert proxied.outcome(probe) == {"echoed": number}
    note.append(
        f"{number} connections, {probe}: direct {direct.seconds(probe):.1f} s, with Weir {proxied.seconds(probe):.1f} s"
    )


@pytest.mark.parametrize("probe", HELLOS)
def test_odd_client_hellos_are_read(direct: Probed, proxied: Probed, probe: str) -> None:
    large, version, alpn, answer = direct.outcome(probe)
    assert (large, version, alpn) == ("16-kib" in probe, "TLSv1.3", "http/1.1")
    assert answer.startswith("HTTP/1.1 200")
    assert proxied.outcome(probe) == direct.outcome(probe)


@pytest.mark.parametrize("failure", FAILURES)
def test_failures_look_the_same(direct: Probed, proxied: Probed, failure: str) -> None:
    expected = FAILURES[failure][1]
    assert direct.outcome(failure) == expected
    assert proxied.outcome(failure) == expected


@pytest.mark.parametrize("probe", ["client-certificate", "no-client-certificate"])
def test_an_origin_that_wants_a_client_certificate_gets_the_clients_own(
    direct: Probed, proxied: Probed, probe: str
) -> None:
    expected = "refused" if probe.startswith("no") else 200
    assert expected in (direct.outcome(probe), direct.outcome(probe)[0])
    # The first flow shows Weir that the origin asks, and may be lost to that; it is remembered and recorded.
    assert proxied.outcome(probe) == direct.outcome(probe)


def test_the_proxied_run_was_proxied(proxied: Probed) -> None:
    """Guards all of the above: a Weir that lets everything by would pass them."""
    for host in ("body.tls13.weir.test", "body.tls12.weir.test", "odd.tls.weir.test"):
        assert {r["decision"] for r in proxied.records_of(host=host, protocol="tls")} == {"intercept"}
    assert {r["reason"] for r in proxied.records_of(port=25)} == {"server_speaks_first"}
    assert len(proxied.records_of(port=7, address=RAW)) == SHORT + 1
    assert len(proxied.records_of(port=7 + TLS_OFFSET, decision="intercept")) == SHORT_TLS + 1


def test_failed_connections_are_recorded_with_their_error(proxied: Probed) -> None:
    for address, port in ((RAW, CLOSED), (RAW6, CLOSED), (UNREACHABLE, 80), (RAW, 4001)):
        records = proxied.records_of(address=address, port=port)
        assert records
        assert all(record["error"] for record in records)
