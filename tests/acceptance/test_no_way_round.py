"""No way round the proxy, for an application process without capabilities, nor into it from outside the pod.

Two policies. `governed`: fails open, everything is intercepted but one denied name, and an address has to come from DNS.
`walled`: fails closed, denies what no rule names, asks its own resolver whatever the application chose, and no other UDP.
"""

import json
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from lab import escapes
from lab.lab import RAW, RAW6, WEB, Lab
from lab.network import DNS_ADDRESS
from lab.policy import Policy
from lab.running import RunningWeir, wait_for

pytestmark = pytest.mark.netns

ECHO = 7
KNOWN, DENIED = "known.tls.weir.test", "denied.tls.weir.test"


@dataclass(frozen=True)
class Tried:
    """What the attempts got, from inside and from outside, and what was recorded."""

    results: dict[str, Any]
    outside: dict[str, Any]
    records: list[dict[str, Any]]
    own: list[str]
    log: str
    trust: str

    def records_of(self, **wanted: Any) -> list[dict[str, Any]]:
        return [r for r in self.records if all(r[name] == value for name, value in wanted.items())]


def _governed(lab: Lab) -> tuple[str, Policy]:
    rules = [{"name": "no", "match": {"hosts": [DENIED]}, "action": "Deny"}]
    return "governed", Policy(root=lab.pki.ca_file, interception={"verifyAddress": "Deny", "rules": rules})


def _walled(lab: Lab) -> tuple[str, Policy]:
    spec = {
        "failureMode": "Closed",
        "defaultAction": "Deny",
        "verifyAddress": "Deny",
        "capture": {"dns": {"server": DNS_ADDRESS}, "otherUDP": "Deny"},
        "rules": [{"name": "known", "match": {"hosts": [KNOWN]}, "action": "Intercept"}],
    }
    return "walled", Policy(root=lab.pki.ca_file, interception=spec)


def _pod_addresses(pod: RunningWeir) -> list[str]:
    listed = json.loads(pod.in_pod(["ip", "-j", "address", "show", "dev", "eth0"]))
    return [info["local"] for info in listed[0]["addr_info"] if info["scope"] == "global"]


def _outside(lab: Lab, own: list[str]) -> dict[str, Any]:
    """The same from the machine, which is the pod's neighbour: its proxy, its admin endpoint, its heartbeat port."""
    script = (
        "import json, sys; from lab.escapes import *; "
        "print(json.dumps({a: {'tcp': tcp(a, PROXY), 'udp': udp(a, PROXY), 'dns': udp(a, PROXY, question(sys.argv[3])), "
        "'admin': tcp(a, ADMIN), 'heartbeat': udp(a, HEARTBEAT)} for a in sys.argv[1:3]}))"
    )
    done = lab.run_direct([sys.executable, "-c", script, *own, KNOWN])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _run(lab: Lab, name: str, policy: Policy) -> Tried:
    directory = lab.directory / f"escapes-files-{name}"
    directory.mkdir()
    targets, results = directory / "targets.json", directory / "results.json"
    # The targets are written when the pod's addresses are known: the command waits for a word.
    script = 'read word; exec "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "lab.escapes", str(targets), str(results)]
    with RunningWeir(lab, f"escapes-{name}", command, policy) as pod:
        wait_for("the proxy serves", lambda: (pod.state / "proxy.pid").exists() and pod.serving())
        own = _pod_addresses(pod)
        targets.write_text(json.dumps(_targets(lab, pod, own)))
        pod.say("go")
        assert pod.line() == "ready"
        outside = _outside(lab, own)
        proxy = pod.proxy()
        os.kill(proxy, signal.SIGSTOP)
        pod.say("the proxy is stopped")
        assert pod.line() == "done"
        os.kill(proxy, signal.SIGCONT)
        wait_for("the proxy goes on", pod.serving)
        trust = pod.in_pod(["curl", "-sS", f"http://127.0.0.1:{escapes.ADMIN}/trust"])
    return Tried(json.loads(results.read_text()), outside, pod.records, ["127.0.0.1", "::1", *own], pod.log, trust)


def _targets(lab: Lab, pod: RunningWeir, own: list[str]) -> dict[str, Any]:
    state = pod.state / "sidecar" / "control.sock"
    return {
        "own": ["127.0.0.1", "::1", *own],
        "raw": RAW,
        "raw6": RAW6,
        "web": WEB["tls"],
        "resolver": DNS_ADDRESS,
        "ca": str(lab.pki.ca_file),
        "known": KNOWN,
        "denied": DENIED,
        "echo": ECHO,
        "proxy": pod.proxy(),
        "control": [str(state), f"/run/weir/{pod.name}/control.sock", f"/proc/{pod.proxy()}/root{state}"],
    }


@pytest.fixture(scope="module")
def governed(weir_lab: Lab) -> Tried:
    return _run(weir_lab, *_governed(weir_lab))


@pytest.fixture(scope="module")
def walled(weir_lab: Lab) -> Tried:
    return _run(weir_lab, *_walled(weir_lab))


@pytest.fixture(params=["governed", "walled"])
def tried(request: pytest.FixtureRequest) -> Tried:
    made: Tried = request.getfixturevalue(request.param)
    return made


REFUSED_TLS = "tls: TLSV1_ALERT_ACCESS_DENIED"
NXDOMAIN, ANSWER = [3, 0], [0, 1]
WORD = escapes.WORD.decode()
ADDRESSES = {RAW: RAW, RAW6: RAW6, f"::ffff:{RAW}": RAW}
"""What an application says, and where that is."""


def test_what_would_need_a_capability_fails(tried: Tried) -> None:
    for what, result in tried.results["privileges"].items():
        assert result in ("EADDRINUSE" if what.startswith("bind-") else ("EPERM", "EACCES")), what


def test_the_proxys_port_answers_nobody(tried: Tried) -> None:
    for address in tried.own:
        assert tried.results[f"proxy-tcp {address}"] == "ECONNRESET"
        assert tried.results[f"proxy-udp {address}"] == tried.results[f"proxy-dns {address}"] == "timeout"
        inside = [r for r in tried.records_of(address=address, port=escapes.PROXY) if r["client"]["uid"] is not None]
        assert {r["reason"] for r in inside} == {"direct_to_proxy"}
        assert Counter(r["protocol"] for r in inside) == {"tcp": 1, "udp": 2}


def test_nobody_outside_the_pod_can_use_the_proxy(tried: Tried) -> None:
    assert len(tried.outside) == 2, "IPv4 and IPv6"
    for address, results in tried.outside.items():
        assert results == {
            "tcp": "ECONNRESET",
            "udp": "timeout",
            "dns": "timeout",
            "admin": "ECONNREFUSED",
            "heartbeat": "ECONNREFUSED",
        }
        outside = [r for r in tried.records_of(address=address, port=escapes.PROXY) if r["client"]["uid"] is None]
        assert {r["reason"] for r in outside} == {"direct_to_proxy"}
        assert Counter(r["protocol"] for r in outside) == {"tcp": 1, "udp": 2}


def test_the_admin_endpoint_can_be_read_and_changes_nothing(tried: Tried) -> None:
    results = dict(tried.results["admin"])
    for path in ("/healthz", "/config", "/trust", "/metrics"):
        assert results.pop(path) == 200
    assert results.pop("/flows") == 404, "what other processes of the pod do is for root"
    assert results.pop("rebound") == 403
    assert set(results.values()) == {405}
    assert escapes.PINNED not in tried.trust
    assert set(tried.results["admin-elsewhere"].values()) == {"ECONNREFUSED"}


def test_the_control_socket_cannot_be_reached(tried: Tried) -> None:
    assert len(tried.results["control"]) == 3
    assert set(tried.results["control"].values()) <= {"ENOENT", "EACCES"}


def test_an_applications_heartbeat_keeps_nothing_closed(governed: Tried, walled: Tried) -> None:
    """The proxy is stopped. With Open the origin answers, so the switch is open; with Closed nothing is let by."""
    assert governed.results["proxy-stopped"] == {RAW: WORD, RAW6: WORD}
    assert set(walled.results["proxy-stopped"].values()) == {"timeout"}


@pytest.mark.parametrize("server", [DNS_ADDRESS, RAW])
def test_denied_names_are_denied_whatever_server_is_asked(tried: Tried, server: str) -> None:
    assert tried.results[f"dns-udp {server} {DENIED}"] == [*NXDOMAIN, server]
    assert tried.results[f"dns-tcp {server} {DENIED}"] == NXDOMAIN
    records = tried.records_of(address=server, port=53, protocol="dns", host=DENIED)
    assert [r["decision"] for r in records] == ["deny"] * 2


def test_dns_over_ipv6_is_the_same(tried: Tried) -> None:
    assert tried.results["dns-udp-v6"] == [*NXDOMAIN, RAW6]
    assert [r["decision"] for r in tried.records_of(address=RAW6, port=53)] == ["deny"]


def test_known_names_are_answered_from_the_server_that_was_asked(tried: Tried) -> None:
    assert tried.results[f"dns-udp {DNS_ADDRESS} {KNOWN}"] == [*ANSWER, DNS_ADDRESS]
    assert tried.results[f"dns-tcp {DNS_ADDRESS} {KNOWN}"] == ANSWER
    records = tried.records_of(address=DNS_ADDRESS, port=53, host=KNOWN)
    assert [r["decision"] for r in records] == ["passthrough"] * 2


def test_another_server_is_asked_only_if_the_policy_leaves_that_to_the_application(
    governed: Tried, walled: Tried
) -> None:
    """Nobody answers there: what comes back with the policy's own resolver is that one's answer."""
    assert governed.results[f"dns-udp {RAW} {KNOWN}"] == "timeout"
    assert governed.results[f"dns-tcp {RAW} {KNOWN}"] == "ECONNRESET"
    assert walled.results[f"dns-udp {RAW} {KNOWN}"] == [*ANSWER, RAW]
    assert walled.results[f"dns-tcp {RAW} {KNOWN}"] == ANSWER
    for tried in (governed, walled):
        assert len(tried.records_of(address=RAW, port=53, host=KNOWN)) == 2


@pytest.mark.parametrize("address", ADDRESSES)
def test_tcp_goes_where_the_policy_says(governed: Tried, walled: Tried, address: str) -> None:
    assert governed.results[f"tcp {address}"] == WORD
    assert walled.results[f"tcp {address}"] == "ECONNRESET"
    for tried, decision in ((governed, "passthrough"), (walled, "deny")):
        records = tried.records_of(address=ADDRESSES[address], port=ECHO, protocol="tcp")
        assert {r["decision"] for r in records} == {decision}
        # The address in two ways of writing, and data in the SYN.
        assert len(records) == (1 if ADDRESSES[address] == RAW6 else 3)


def test_data_in_the_syn_is_no_way_round(governed: Tried, walled: Tried) -> None:
    assert governed.results["fast-open"] == WORD
    assert walled.results["fast-open"] == "ECONNRESET"


def test_a_socket_bound_to_the_link_does_not_leave_by_it(tried: Tried) -> None:
    """It cannot be brought to the proxy either, nor be recorded: the kernel drops what it sends."""
    for address in (RAW, RAW6):
        assert tried.results[f"bound SOCK_STREAM {address}"] == "timeout"
        assert tried.results[f"bound SOCK_DGRAM {address}"] == "EPERM"
    assert tried.results["bound-dns"] == "EPERM"


@pytest.mark.parametrize("address", ADDRESSES)
def test_quic_is_told_to_fall_back(tried: Tried, address: str) -> None:
    assert tried.results[f"quic {address}"] == "ECONNREFUSED"
    records = tried.records_of(address=ADDRESSES[address], port=443, protocol="udp")
    assert {(r["decision"], r["reason"]) for r in records} == {("deny", "quic_rejected")}


@pytest.mark.parametrize("address", ADDRESSES)
def test_other_udp_goes_where_the_policy_says(governed: Tried, walled: Tried, address: str) -> None:
    reasons = {"governed": "default", "walled": "other_udp_denied"}
    for tried, reason in zip((governed, walled), reasons.values(), strict=True):
        # Nobody listens there, so the client is told the same; who said so is in the record.
        assert tried.results[f"udp {address}"] == "ECONNREFUSED"
        assert {r["reason"] for r in tried.records_of(address=ADDRESSES[address], port=9999)} == {reason}
    assert {r["error"] for r in governed.records_of(address=ADDRESSES[address], port=9999)} != {None}


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_denied_name_is_denied_at_any_address(tried: Tried, address: str) -> None:
    assert tried.results[f"denied-sni {address}"] == REFUSED_TLS
    records = tried.records_of(address=ADDRESSES[address], sni=DENIED)
    assert {r["decision"] for r in records} == {"deny"}


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_name_opens_no_address_that_is_not_its_own(tried: Tried, address: str) -> None:
    assert tried.results[f"borrowed-sni {address}"] == REFUSED_TLS
    assert tried.results[f"borrowed-host {address}"] == 403
    for protocol in ("tls", "http"):
        records = tried.records_of(address=ADDRESSES[address], protocol=protocol, host=KNOWN)
        assert records
        assert {r["reason"] for r in records} == {"address_not_from_dns"}


def test_a_name_opens_its_own_address_once_dns_gave_it(tried: Tried) -> None:
    assert tried.results["before-dns"] == REFUSED_TLS
    assert tried.results["after-dns"] == "TLSv1.3"
    records = tried.records_of(address=WEB["tls"], sni=KNOWN)
    assert [r["decision"] for r in records] == ["deny", "intercept"]


def test_denied_hosts_are_denied_in_http(tried: Tried) -> None:
    assert tried.results["denied-host"] == tried.results["borrowed-host-web"] == 403
    assert {r["decision"] for r in tried.records_of(address=WEB["tls"], protocol="http")} == {"deny"}
