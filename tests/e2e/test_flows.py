"""What each kind of flow meets in a captured pod, and what its record says: in each mode, with each way of capture, and to
addresses of each family. One pod does it all once; the tests look at what it told and at what its sidecar recorded.
"""

import ipaddress
import json
from typing import Any, NamedTuple

import pytest

from lab.place import Place
from lab.workloads import container, pod

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(600)]

CAPTURES = ("TPROXY", "Redirect")
NXDOMAIN = 3


class Probed(NamedTuple):
    """What the probes of one family met."""

    capture: str
    family: str
    outcomes: dict[str, Any]
    records: list[dict[str, Any]]
    names: dict[str, dict[str, str]]

    def host(self, role: str) -> str:
        return self.names[role]["host"]

    def flows(self, **wanted: Any) -> list[dict[str, Any]]:
        """Records of flows that say this; those that are not DNS, to addresses of the family."""
        return [
            one
            for one in self.records
            if "record" not in one
            and (one["protocol"] == "dns" or str(ipaddress.ip_address(one["address"]).version) == self.family)
            and all(one[field] == value for field, value in wanted.items())
        ]

    def decisions(self, **wanted: Any) -> set[tuple[str, str]]:
        return {(one["decision"], one["reason"]) for one in self.flows(**wanted)}

    def requests(self, role: str) -> list[dict[str, Any]]:
        """Records of requests to a host."""
        return [one for one in self.records if one.get("record") == "request" and one["host"] == self.host(role)]


def named(capture: str) -> str:
    return f"probe-{capture.lower()}"


def rules(names) -> list[dict[str, Any]]:
    def hosts(role):
        return {"hosts": [roles[role]["host"] for roles in names.values()]}

    http = [
        {"name": "no", "match": {"paths": [{"value": "/forbidden"}]}, "action": "Deny"},
        {"name": "marked", "setRequestHeaders": [{"name": "X-Seen", "value": "by Weir"}]},
    ]
    return [
        {"name": "passed", "match": hosts("passed"), "action": "Passthrough"},
        {"name": "denied", "match": hosts("denied"), "action": "Deny"},
        {"name": "ruled", "match": hosts("ruled"), "action": "Intercept", "http": http},
    ]


@pytest.fixture(scope="module")
def told(here: Place, names) -> dict[str, tuple[list, list]]:
    """Of each way of capture what the pod told, and what its sidecar recorded."""
    for capture in CAPTURES:
        here.policy(named(capture), named(capture), capture={"mode": capture}, rules=rules(names))
        here.start(here.fit(pod(named(capture), container("probe", json.dumps(names)))))
    found = {}
    for capture in CAPTURES:
        name = named(capture)
        here.weir.wait_phase(here.namespace, name, "Succeeded")
        found[capture] = (here.weir.told(here.namespace, name), here.records(name))
    return found


@pytest.fixture(params=CAPTURES)
def probed(request: pytest.FixtureRequest, told, family, names) -> Probed:
    outcomes, records = told[request.param]
    mine = {one["probe"]: one["outcome"] for one in outcomes if one["family"] == family}
    return Probed(request.param, family, mine, records, names[family])


def test_https_is_intercepted_and_its_request_is_recorded(probed):
    met = {"status": 200, "body": "hello from origin", "weir": True}
    assert probed.outcomes["https"] == met
    assert probed.decisions(host=probed.host("web"), protocol="tls", port=443) == {("intercept", "default")}
    (request,) = [one for one in probed.requests("web") if one["flow"] in flow_ids(probed, "tls")]
    assert (request["method"], request["path"], request["status"], request["decision"]) == ("GET", "/", 200, "allow")


def test_http_is_read_and_its_request_is_recorded(probed):
    assert probed.outcomes["http"] == {"status": 200, "body": "hello from origin"}
    assert probed.decisions(host=probed.host("web"), protocol="http") == {("intercept", "default")}
    (request,) = [one for one in probed.requests("web") if one["flow"] in flow_ids(probed, "http")]
    assert (request["method"], request["path"], request["status"]) == ("GET", "/", 200)


def flow_ids(probed: Probed, protocol: str) -> set[str]:
    return {one["id"] for one in probed.flows(host=probed.host("web"), protocol=protocol)}


def test_a_client_that_does_not_trust_the_ca_fails_once_and_passes_from_then_on(probed):
    first, *others = [probed.outcomes[f"pinned-{attempt}"] for attempt in range(3)]
    assert first["error"] == "SSLCertVerificationError"
    assert others == [{"status": 200, "body": "hello from origin", "weir": False}] * 2
    failed, *passed = probed.flows(host=probed.host("pinned"), protocol="tls")
    assert (failed["decision"], failed["error"], failed["tls"]["client_alert"]) == (
        "intercept",
        "client_tls_failed",
        48,
    )
    assert [(one["decision"], one["reason"]) for one in passed] == [("passthrough", "client_distrusts_ca")] * 2


def test_a_rule_lets_pass(probed):
    assert probed.outcomes["passed"] == {"status": 200, "body": "hello from origin", "weir": False}
    (flow,) = probed.flows(host=probed.host("passed"), protocol="tls")
    assert (flow["decision"], flow["reason"]) == ("passthrough", "rule")
    assert flow["rule"].endswith("/passed")


def test_a_rule_denies_by_name_and_by_address(probed):
    assert probed.outcomes["denied"]["error"] == "gaierror"
    assert probed.outcomes["denied-by-address"]["reason"] == "TLSV1_ALERT_ACCESS_DENIED"
    for protocol in ("dns", "tls"):
        flows = probed.flows(host=probed.host("denied"), protocol=protocol)
        assert {(one["decision"], one["reason"]) for one in flows} == {("deny", "rule")}
        assert all(one["rule"].endswith("/denied") for one in flows)


def test_rules_on_requests_refuse_and_change(probed):
    assert probed.outcomes["forbidden"]["status"] == 403
    assert json.loads(probed.outcomes["headers"]["body"])["x-seen"] == "by Weir"
    refused, changed = probed.requests("ruled")
    assert (refused["path"], refused["status"], refused["decision"]) == ("/forbidden?secret=*", 403, "deny")
    assert refused["rule"].endswith("/ruled/no")
    assert (changed["path"], changed["status"], changed["decision"]) == ("/headers", 200, "allow")
    assert changed["rule"].endswith("/ruled/marked")


def test_a_bad_certificate_never_becomes_a_good_one(probed):
    assert "SSL" in probed.outcomes["bad-certificate"]["error"]
    (flow,) = probed.flows(host=probed.host("web"), port=444)
    assert (flow["decision"], flow["reason"]) == ("deny", "upstream_certificate_invalid")
    assert flow["tls"]["verify_error"] is not None


def test_a_server_that_wants_a_client_certificate_is_passed_through(probed):
    assert probed.outcomes["client-certificate"] == {"status": 200, "body": "hello from origin", "weir": False}
    assert probed.decisions(host=probed.host("web"), port=445) == {("passthrough", "client_certificate_requested")}


def test_tcp_that_is_neither_tls_nor_http_passes(probed):
    assert probed.outcomes["tcp"] == {"got": "\x01any bytes"}
    assert probed.decisions(protocol="tcp", port=7007) == {("passthrough", "not_tls_or_http")}


def test_a_server_that_speaks_first_is_heard(probed):
    assert probed.outcomes["banner"] == {"got": "220 origin\r\n", "echo": "QUIT\r\n"}
    assert probed.decisions(protocol="tcp", port=2525) == {("passthrough", "server_speaks_first")}


def test_refused_is_refused(probed):
    met = "ConnectionRefusedError" if probed.capture == "TPROXY" else "ConnectionResetError"
    assert probed.outcomes["refused"] == {"error": met}
    (flow,) = probed.flows(port=9)
    assert flow["error"] == "upstream_refused"


def test_the_proxys_own_port_is_no_way_in(probed):
    assert probed.outcomes["to-proxy"]["error"] == "ConnectionResetError"
    assert probed.decisions(port=15801) == {("deny", "direct_to_proxy")}


@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_dns_of_the_cluster(probed, over):
    assert probed.outcomes[f"dns-{over}"] == {"code": 0, "answers": 1, "matches": True}
    assert probed.outcomes[f"dns-{over}-denied"] == {"code": NXDOMAIN, "answers": 0, "matches": True}
    assert probed.decisions(protocol="dns", host=probed.host("web")) == {("passthrough", "default")}
    assert probed.decisions(protocol="dns", host=probed.host("denied")) == {("deny", "rule")}


@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_dns_of_any_other_server_is_captured(probed, over):
    answer = probed.outcomes[f"dns-{over}-other"]
    assert answer["matches"]
    if probed.capture == "TPROXY":
        assert (answer["code"], answer["answers"]) == (0, 1)
        asked = {str(ipaddress.ip_address(one["address"]).version) for one in probed.flows(host="other.example")}
        assert probed.family in asked
    assert probed.decisions(protocol="dns", host="other.example") == {("passthrough", "default")}


def test_other_udp_as_the_way_of_capture_promises(probed):
    assert probed.outcomes["udp"] == {"got": "any datagram"}
    recorded = {("passthrough", "default")} if probed.capture == "TPROXY" else set()
    assert probed.decisions(protocol="udp", port=7007) == recorded


def test_quic_is_refused_at_once(probed):
    refused = "ConnectionRefusedError" if probed.capture == "TPROXY" else "PermissionError"
    assert probed.outcomes["quic"] == {"error": refused}
    recorded = {("deny", "quic_rejected")} if probed.capture == "TPROXY" else set()
    assert probed.decisions(protocol="udp", port=443) == recorded
