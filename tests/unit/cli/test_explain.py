"""`weir explain`: what would happen to a flow, which rule says so, and why."""

import json
import time
from pathlib import Path

import pytest

from weir_cli.commands.explain import explain
from weir_cli.main import main
from weir_sidecar.contract.config import (
    DNS,
    Action,
    Capture,
    CaptureMode,
    Exclude,
    FailOpen,
    FailureMode,
    IDRange,
    OtherUDP,
    PortRange,
    QuicMode,
    SidecarConfig,
)
from weir_sidecar.contract.flow import Decision, Protocol
from weir_sidecar.core.trust_cache import TrustCache
from weir_sidecar.core.verdict import FlowFacts

EXAMPLES = Path(__file__).parents[3] / "docs/examples"


def ask(capsys, *argv, example="default-deny"):
    assert main(["explain", "-f", str(EXAMPLES / f"{example}.yaml"), *argv]) == 0
    out, err = capsys.readouterr()
    assert all("no effect on one machine" in remark for remark in err.splitlines())
    return out


def test_json_has_the_verdict_and_the_question(capsys):
    argv = [
        "--host",
        "Raw.GithubUserContent.com.",
        "--address",
        "2001:DB8::1",
        "--port",
        "443",
        "--uid",
        "7",
        "-o",
        "json",
    ]
    assert json.loads(ask(capsys, *argv)) == {
        "decision": "intercept",
        "reason": "rule",
        "rule": "sandbox/code",
        "host": "raw.githubusercontent.com",
        "address": "2001:db8::1",
        "port": 443,
        "uid": 7,
        "ja4": None,
        "protocol": "tls",
    }


def test_text_says_the_three_and_why(capsys):
    out = ask(capsys, "--host", "tracker.example", "--address", "192.0.2.1", "--port", "80", example="deny-host")
    assert out.splitlines() == [
        "decision: deny",
        "rule:     deny-host/no-tracker",
        "reason:   rule",
        "why:      it is the first rule that matches this flow",
    ]
    out = ask(capsys, "--host", "pypi.org", "--address", "192.0.2.1", "--port", "443")
    assert out.splitlines()[-1] == "if:       DNS gave the pod this address for this name; verifyAddress is Deny"


@pytest.mark.parametrize(
    ("example", "argv", "verdict"),
    [
        ("debug", "--address 192.0.2.1 --port 5432", ("passthrough", "not_tls_or_http", None)),
        ("debug", "--address 192.0.2.1 --port 80", ("intercept", "default", None)),
        ("debug", "--address 192.0.2.1 --port 443 --protocol udp", ("deny", "quic_rejected", None)),
        ("debug", "--address 192.0.2.1 --port 53 --host use-application-dns.net", ("deny", "doh_canary", None)),
        ("default-deny", "--address 192.0.2.1 --port 443", ("deny", "default", None)),
        ("default-deny", "--address 192.0.2.1 --port 80 --host pypi.org", ("deny", "default", None)),
        ("default-deny", "--address 10.20.1.1 --port 5432", ("passthrough", "rule", "sandbox/database")),
        ("default-deny", "--address 192.0.2.53 --port 53 --host pypi.org", ("passthrough", "rule", "sandbox/packages")),
        ("default-deny", "--address 192.0.2.53 --port 53 --host evil.example", ("deny", "default", None)),
        ("default-deny", "--address 192.0.2.1 --port 99 --protocol udp", ("deny", "other_udp_denied", None)),
        (
            "pinned-app",
            "--address 192.0.2.1 --port 443 --host x.agent.example --uid 2500",
            ("passthrough", "rule", "pinned-app/agent"),
        ),
        ("pinned-app", "--address 192.0.2.1 --port 443 --host x.agent.example --uid 5", ("intercept", "default", None)),
        (
            "pinned-app",
            "--address 192.0.2.1 --port 443 --host www.bank.example",
            ("passthrough", "never_intercept", None),
        ),
        ("debug", "--address 127.0.0.1 --port 443", ("passthrough", "not_captured", None)),
        ("agents", "--host pypi.org", ("intercept", "rule", "agents/packages")),
        ("agents", "--host pypi.org --port 53", ("passthrough", "rule", "agents/packages")),
        ("agents", "--host elsewhere.example", ("deny", "default", None)),
        ("agents", "--host elsewhere.example --port 53", ("deny", "default", None)),
        ("audit", "--host www.example.com", ("passthrough", "default", None)),
        ("audit", "--address 192.0.2.1 --port 443 --protocol udp", ("passthrough", "default", None)),
    ],
)
def test_examples(example, argv, verdict, capsys):
    found = json.loads(ask(capsys, *argv.split(), "-o", "json", example=example))
    assert (found["decision"], found["reason"], found["rule"]) == verdict


@pytest.mark.parametrize(
    ("capture", "protocol", "port", "why"),
    [
        (Capture(ports=(PortRange(443, 443),)), Protocol.TCP, 80, "capture.ports does not have 80"),
        (Capture(ports=(PortRange(443, 443),)), Protocol.DNS, 53, None),
        (Capture(exclude=Exclude(ports=(PortRange(53, 53),))), Protocol.DNS, 53, "capture.exclude.ports has 53"),
        (Capture(exclude=Exclude(cidrs=("192.0.2.0/24",))), Protocol.TLS, 443, "capture.exclude.cidrs has 192.0.2.1"),
        (Capture(exclude=Exclude(uids=(IDRange(7, 7),))), Protocol.TLS, 443, "capture.exclude.uids has 7"),
        (Capture(exclude=Exclude(uids=(IDRange(8, 8),))), Protocol.TLS, 443, None),
        (Capture(dns=DNS(capture=False)), Protocol.DNS, 53, "capture.dns.capture is false"),
        (Capture(other_udp=OtherUDP.IGNORE), Protocol.UDP, 9, "capture.otherUDP is Ignore"),
        (Capture(other_udp=OtherUDP.IGNORE, quic=QuicMode.ALLOW), Protocol.UDP, 443, "capture.otherUDP is Ignore"),
        (Capture(other_udp=OtherUDP.IGNORE), Protocol.UDP, 443, None),
        (Capture(mode=CaptureMode.REDIRECT), Protocol.UDP, 9, "mode Redirect has no UDP relay"),
        (Capture(), Protocol.UDP, 9, None),
    ],
)
def test_flows_that_the_kernel_lets_go_direct(capture, protocol, port, why):
    answer = explain(SidecarConfig(capture=capture), FlowFacts(protocol, "192.0.2.1", port, uid=7))
    assert (answer.reason == "not_captured") is (why is not None)
    if why is not None:
        assert answer.decision is Decision.PASSTHROUGH
        assert answer.why.endswith(why)


def test_link_local_ipv6_goes_direct_only_when_open():
    facts = FlowFacts(Protocol.TCP, "fe80::1", 9)
    assert explain(SidecarConfig(), facts).reason == "not_captured"
    closed = SidecarConfig(failure_mode=FailureMode.CLOSED, default_action=Action.DENY)
    assert explain(closed, facts).decision is Decision.DENY


def test_a_saved_trust_cache_is_asked(tmp_path, capsys):
    now = time.time()
    cache = TrustCache(FailOpen())
    cache.pin("pinned.example", None, None, now)
    cache.approve("approved.example", None, None, now)
    (tmp_path / "sidecar").mkdir()
    (tmp_path / "sidecar" / "trust.json").write_bytes(cache.dump(now))

    def reason(host, *more):
        argv = [
            "--state",
            str(tmp_path),
            "--address",
            "192.0.2.1",
            "--port",
            "443",
            "--host",
            host,
            "-o",
            "json",
            *more,
        ]
        found = json.loads(ask(capsys, *argv, example="debug"))
        return found["decision"], found["reason"]

    assert reason("pinned.example") == ("passthrough", "pinned")
    assert reason("approved.example") == ("intercept", "approved")
    assert reason("other.example") == ("intercept", "default")
    assert reason("pinned.example", "--protocol", "http") == ("intercept", "default")


@pytest.mark.parametrize("content", [None, b"{}x"])
def test_a_state_that_cannot_be_read_is_told(content, tmp_path, capsys):
    state = tmp_path / "state"
    if content is not None:
        (state / "sidecar").mkdir(parents=True)
        (state / "sidecar" / "trust.json").write_bytes(content)
    assert main(["explain", "--state", str(state), "--host", "h", "--address", "192.0.2.1", "--port", "443"]) == 2
    assert capsys.readouterr().err.startswith(f"weir: --state {state}: ")


@pytest.mark.parametrize(
    "argv",
    [
        "--address example.com --port 443",
        "--address 192.0.2.1 --port 0",
        "--address 192.0.2.1 --port 65536",
        "--address 192.0.2.1 --port 443 --host a/b",
        "--address 192.0.2.1 --port 443 --uid -1",
        "--address 192.0.2.1 --port 443 --ja4 x",
        "--address 192.0.2.1 --port 443 --protocol quic",
    ],
)
def test_wrong_arguments_exit_with_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["explain", *argv.split()])
    assert caught.value.code == 2
    assert "weir explain: error: " in capsys.readouterr().err


def test_a_flow_goes_somewhere(capsys):
    assert main(["explain", "--port", "443"]) == 2
    assert "give --host, --address, or both" in capsys.readouterr().err


def test_an_address_is_enough_and_the_port_is_that_of_https(capsys):
    assert "decision: intercept" in ask(capsys, "--address", "192.0.2.1", example="debug")


def test_wrong_policies_exit_with_2(tmp_path, capsys):
    path = tmp_path / "p.yaml"
    path.write_text("a: [")
    assert main(["explain", "-f", str(path), "--address", "192.0.2.1", "--port", "443"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"weir: {path}:")


REQUESTS = """
apiVersion: weir.dev/v1alpha1
kind: InterceptionPolicy
metadata: {name: p}
spec:
  rules:
    - name: api
      match: {hosts: [api.example.com]}
      action: Intercept
      http:
        - {name: read, match: {methods: [GET], paths: [{value: /v1}]}, setRequestHeaders: [{name: X-A, value: b}],
           removeResponseHeaders: [Server], delay: 2s}
        - {name: key, match: {headers: [{name: X-Key}]}, credentialFrom: {header: Authorization, file: /run/key}}
        - {name: cut, match: {methods: [TRACE]}, abort: true}
        - {action: Deny, status: 451}
"""


@pytest.mark.parametrize(
    ("argv", "decision", "rule", "effects"),
    [
        (
            ["--path", "/v1/x?y"], "allow", "p/api/read",
            ["it waits 2 s", "x-a of the request is set", "server of the answer is removed"],
        ),
        (["--method", "POST"], "deny", "p/api/http-4", ["it is answered with status 451"]),
        (["--header", "X-Key: 1"], "allow", "p/api/key", ["authorization gets the credential of /run/key"]),
        (["--method", "TRACE"], "deny", "p/api/cut", ["it is answered by a reset"]),
    ],
)  # fmt: skip
def test_a_request_is_explained(  # noqa: PLR0917 - what is asked and what is told
    tmp_path, capsys, argv, decision, rule, effects
):
    file = tmp_path / "p.yaml"
    file.write_text(REQUESTS)
    ask = ["explain", "-f", str(file), "--host", "api.example.com", *argv]
    assert main([*ask, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["request"] == {"decision": decision, "rule": rule, "effects": effects}
    assert main(ask) == 0
    out = capsys.readouterr().out
    assert f"request:  {decision}\nrule:     {rule}\n" in out
    assert "".join(f"then:     {what}\n" for what in effects) in out


def test_a_request_is_not_explained_where_it_is_not_read(tmp_path, capsys):
    file = tmp_path / "p.yaml"
    file.write_text(REQUESTS)
    assert main(["explain", "-f", str(file), "--host", "api.example.com", "--protocol", "tcp", "--path", "/"]) == 0
    assert "request:" not in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--path", "v1"], ["--header", "X-A"], ["--header", "X A: b"]])
def test_a_request_that_is_none_is_refused(argv, capsys):
    with pytest.raises(SystemExit):
        main(["explain", "--host", "a.test", *argv])
    assert "allowed:" in capsys.readouterr().err
