"""Several policies to one config: order, the first that gives a field, joined rules, what is checked beyond the form."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from weir_operator.arrange import arrange
from weir_operator.check import notices, problems
from weir_operator.compile import Injection, compile_injection, compile_policies
from weir_operator.load import load
from weir_operator.problems import PolicyError
from weir_sidecar.contract import config, http, request_log
from weir_sidecar.contract.config import (
    Action,
    FailureMode,
    IDRange,
    Match,
    PortRange,
    Rule,
    SidecarConfig,
    VerifyAddress,
)

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.yaml"))
GOLDEN = ROOT / "tests/golden/policy"


def document(spec, name="p", kind="InterceptionPolicy"):
    return f"apiVersion: weir.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def arranged(*documents):
    return arrange(load("---\n".join(documents).encode(), "p.yaml"))


def compiled(*documents, roots=None):
    return compile_policies(arranged(*documents), roots or {})


def said(*documents):
    return [str(problem) for problem in problems(arranged(*documents))]


def difference(value, default):
    """What of a config differs from the default."""
    if isinstance(value, dict) and isinstance(default, dict):
        parts = {key: difference(below, default.get(key)) for key, below in value.items()}
        return {key: part for key, part in parts.items() if part is not None} or None
    return None if value == default else value


def test_no_policy_is_the_default_config():
    assert compile_policies(arrange([]), {}) == SidecarConfig()
    assert compiled(document("{}"), document("{}", kind="TrustPolicy")) == SidecarConfig()
    assert compile_injection(arrange([])) == Injection()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_come_to_what_was_reviewed(example):
    policies = arrange(load(example.read_bytes(), example.name))
    assert problems(policies) == []
    assert [notice for notice in map(str, notices(policies)) if "no effect on one machine" not in notice] == []
    result = compile_policies(policies, {})
    assert config.decode(config.encode(result)) == result
    found = difference(json.loads(config.encode(result)), json.loads(config.encode(SidecarConfig())))
    assert found == json.loads((GOLDEN / f"{example.stem}.json").read_text())


def test_every_golden_file_has_its_example():
    assert {path.stem for path in GOLDEN.glob("*.json")} == {path.stem for path in EXAMPLES}


def test_cluster_policies_come_first_then_low_priority_then_the_order_given():
    def one(name, more="", kind="InterceptionPolicy"):
        return document(f"{{{more} rules: [{{name: r, action: Deny}}]}}", name, kind)

    result = compiled(
        one("third"),
        one("second", "priority: 999,"),
        one("fourth"),
        one("first", "priority: 10000,", "ClusterInterceptionPolicy"),
        one("zeroth", "priority: 0,", "ClusterInterceptionPolicy"),
    )
    assert [rule.name for rule in result.rules] == ["zeroth/r", "first/r", "second/r", "third/r", "fourth/r"]


def test_each_field_is_decided_by_the_first_policy_that_gives_it():
    result = compiled(
        document("{failureMode: Closed, capture: {ports: [1], dns: {cache: true}, exclude: {uids: [5]}}}", "a"),
        document(
            "{failureMode: Open, startup: Open, defaultAction: Deny, verifyAddress: Ignore, capture: {ports: [2],"
            " quic: Allow, otherUDP: Ignore, otherProtocols: false, mode: Redirect, dns: {cache: false, stripECH: false,"
            ' server: "192.0.2.53", denial: REFUSED}, exclude: {uids: [6], ports: ["7-8"]}}}',
            "b",
        ),
    )
    assert result == SidecarConfig(
        failure_mode=FailureMode.CLOSED,
        startup=config.Startup.OPEN,
        default_action=Action.DENY,
        verify_address=VerifyAddress.IGNORE,
        capture=config.Capture(
            mode=config.CaptureMode.REDIRECT,
            ports=(PortRange(1, 1),),
            quic=config.QuicMode.ALLOW,
            other_udp=config.OtherUDP.IGNORE,
            other_protocols=False,
            dns=config.DNS(cache=True, strip_ech=False, server="192.0.2.53", denial=config.DNSDenial.REFUSED),
            exclude=config.Exclude(uids=(IDRange(5, 5),), ports=(PortRange(7, 8),)),
        ),
    )


def test_an_unnamed_rule_is_named_by_its_place_and_several_apps_become_several_rules():
    result = compiled(
        document(
            "{rules: [{action: Deny}, {action: Passthrough, match: {hosts: [a], apps: [{uids: [1], ja4:"
            " [t13d1516h2_8daaf6152771_02713d6af862]}, {uids: [2]}]}}]}"
        )
    )
    assert result.rules == (
        Rule("p/rule-1", Match(), Action.DENY),
        Rule(
            "p/rule-2",
            Match(hosts=("a",), uids=(IDRange(1, 1),), ja4=("t13d1516h2_8daaf6152771_02713d6af862",)),
            Action.PASSTHROUGH,
        ),
        Rule("p/rule-2", Match(hosts=("a",), uids=(IDRange(2, 2),)), Action.PASSTHROUGH),
    )


def test_trust_policies():
    result = compiled(
        document(
            "{ca: {source: Pod, keyAlgorithm: ECDSA-P256, leafLifetime: 1h}, upstream: {roots: [{file: a}, {file: b}],"
            ' systemRoots: false, minTLSVersion: "1.3", onInvalidCertificate: Passthrough}, neverIntercept: [h1, h2]}',
            "a",
            "TrustPolicy",
        ),
        document(
            "{ca: {leafLifetime: 2h}, upstream: {roots: []}, neverIntercept: [h2, h3], failOpen: {enabled: false, ttl: 48h,"
            " failureThreshold: 3}, injection: {java: false}}",
            "b",
            "TrustPolicy",
        ),
        roots={("p.yaml", "a"): "A", ("p.yaml", "b"): "B"},
    )
    assert result.trust == config.Trust(
        leaf_lifetime=3600,
        never_intercept=("h1", "h2", "h3"),
        upstream=config.Upstream(
            roots_pem=("A", "B"),
            system_roots=False,
            min_tls_version="1.3",
            on_invalid_certificate=config.OnInvalidCertificate.PASSTHROUGH,
        ),
        fail_open=config.FailOpen(enabled=False, failure_threshold=3, ttl=172800, max_ttl=172800),
    )


def test_the_first_policy_that_says_so_hardens_or_does_not():
    later = document("{hardenContainers: false}", "b")
    assert compile_injection(arranged(document("{}", "a"), document("{hardenContainers: true}", "a2"), later)).harden
    assert not compile_injection(arranged(later, document("{hardenContainers: true}", "c"))).harden


def test_injection():
    policies = arranged(
        document("{injection: {java: false}}", "a", "TrustPolicy"),
        document("{injection: {java: true, nss: false, environment: false}}", "b", "TrustPolicy"),
    )
    assert compile_injection(policies) == Injection(environment=False, java=False, nss=False)


def test_a_trust_policy_that_is_referred_to_excludes_the_others():
    policies = arranged(
        document("{neverIntercept: [a]}", "a", "TrustPolicy"),
        document("{neverIntercept: [b]}", "b", "TrustPolicy"),
        document("{neverIntercept: [c]}", "b", "ClusterTrustPolicy"),
        document("{trustPolicyRef: {name: b}}"),
    )
    assert compile_policies(policies, {}).trust.never_intercept == ("b",)
    assert [notice.split(": ", 1)[0] for notice in notices(policies)] == ["p.yaml:11:1", "p.yaml:1:1"]
    without = compiled(
        document("{neverIntercept: [a]}", "a", "TrustPolicy"),
        document("{neverIntercept: [c]}", "b", "ClusterTrustPolicy"),
    )
    assert without.trust.never_intercept == ("c", "a")


def test_a_reference_to_nothing_and_an_object_given_twice():
    with pytest.raises(PolicyError) as caught:
        arranged(document("{trustPolicyRef: {name: b}}"), document("{}"))
    twice, dangling = str(caught.value).splitlines()
    assert twice == "p.yaml:8:18: metadata.name: found InterceptionPolicy 'p' again; it is already at p.yaml:1"
    assert dangling.startswith("p.yaml:4:24: spec.trustPolicyRef: found TrustPolicy 'b', which no given file holds; ")


@pytest.mark.parametrize(
    ("spec", "kind", "says"),
    [
        (
            "{rules: [{action: Deny, http: [{match: {}}]}]}",
            "InterceptionPolicy",
            "p.yaml:4:37: spec.rules[0].http: found Deny; rules on requests need the action Intercept",
        ),
        (
            (
                "{rules: [{action: Intercept, match: {hosts: [a.test]}, http: [{credentialFrom: {header: A, secret:"
                " {name: s, key: k}}}]}]}"
            ),
            "InterceptionPolicy",
            "spec.rules[0].http[0].credentialFrom.secret: only a cluster has it; allowed on one machine: file",
        ),
        (
            "{capture: {inbound: true}}",
            "InterceptionPolicy",
            "spec.capture.inbound: capture of inbound flows is not supp",
        ),
        (
            "{capture: {inbound: {ports: [1]}}}",
            "InterceptionPolicy",
            "spec.capture.inbound: capture of inbound flows is",
        ),
        (
            "{rules: [{name: a, action: Deny}, {name: a, action: Deny}]}",
            "InterceptionPolicy",
            "spec.rules[1].name: found 'a', the name of spec.rules[0] too",
        ),
        ("{ca: {source: Secret}}", "TrustPolicy", "spec.ca.source: found Secret, which only a cluster has"),
        (
            "{upstream: {roots: [{configMap: {name: a, key: b}}]}}",
            "TrustPolicy",
            "p.yaml:4:39: spec.upstream.roots[0].configMap: only a cluster has it; allowed on one machine: file",
        ),
        (
            "{upstream: {roots: [{configMap: {name: a, key: b}}]}}",
            "TrustPolicy",
            "spec.upstream.roots[0].configMap: only a",
        ),
        (
            "{upstream: {roots: [{}]}}",
            "TrustPolicy",
            "spec.upstream.roots[0]: allowed: exactly one of file, pem, configMap",
        ),
        ("{upstream: {roots: [{file: a, configMap: {name: a, key: b}}]}}", "TrustPolicy", "allowed: exactly one of"),
        ("{upstream: {systemRoots: false}}", "TrustPolicy", "spec.upstream.systemRoots: found false without roots"),
        ("{ca: {leafLifetime: 59s}}", "TrustPolicy", "spec.ca.leafLifetime: found 59 s; allowed: at least 60 s"),
        ("{failOpen: {ttl: 2h, maxTTL: 1h}}", "TrustPolicy", "spec.failOpen.maxTTL: found 3600 s; allowed: at least"),
    ],
)
def test_what_cannot_be_used_is_refused(spec, kind, says):
    (line,) = said(document(spec, kind=kind))
    assert says in line


def test_what_has_no_effect_here_is_told():
    policies = arranged(
        document(
            "{podSelector: {}, hardenContainers: true, namespaceSelector: {}, capture: {inbound: false}, trustPolicyRef: {name: t},"
            " rules: [{action: Deny, match: {apps: [{containers: [c]}]}, http: []}]}"
        ),
        document("{injection: {containers: [c]}, failOpen: {share: false}}", "t", "TrustPolicy"),
    )
    assert problems(policies) == []
    assert [notice.split(": ")[1] for notice in notices(policies)] == [
        "spec.podSelector",
        "spec.hardenContainers",
        "spec.namespaceSelector",
        "spec.rules[0].match.apps[0].containers",
        "spec.injection.containers",
        "spec.failOpen.share",
    ]


def test_rules_on_requests_become_the_sidecars():
    text = """{rules: [{name: api, action: Intercept, match: {hosts: [a.test], apps: [{uids: [1]}, {uids: [2]}]}, http: [
      {name: read, match: {methods: [GET], paths: [{value: /v1}, {value: /x, type: Exact}], headers: [{name: X-A}],
       query: [{name: q, value: "1"}]}, setRequestHeaders: [{name: X-B, value: c}], removeResponseHeaders: [Server],
       delay: 500ms, credentialFrom: {header: Authorization, file: /run/secret, format: "Bearer {}"}},
      {action: Deny, status: 451, body: sorry}, {abort: true}]}]}"""
    one, other = compile_policies(arranged(document(text)), {}).rules
    assert one.http == other.http
    assert one.http == (
        http.RequestRule(
            name="p/api/read",
            match=http.RequestMatch(
                methods=("GET",),
                paths=(http.PathMatch("/v1"), http.PathMatch("/x", http.PathKind.EXACT)),
                headers=(http.HeaderMatch("x-a"),),
                query=(http.QueryMatch("q", "1"),),
            ),
            set_request_headers=(http.Header("x-b", "c"),),
            remove_response_headers=("server",),
            delay=0.5,
            credential=http.Credential("authorization", "/run/secret", "Bearer {}"),
        ),
        http.RequestRule(name="p/api/http-2", action=http.RequestAction.DENY, status=451, body="sorry"),
        http.RequestRule(name="p/api/http-3", abort=True),
    )


def test_a_rule_without_rules_on_requests_is_written_as_before():
    (rule,) = compile_policies(arranged(document("{rules: [{action: Deny}]}")), {}).rules
    assert b"http" not in msgspec.json.encode(rule)


def test_logging_is_the_first_policys_that_gives_it_and_whatever_any_redacts_is_redacted():
    result = compiled(
        document(
            "{logging: {headers: Names, bodies: {request: true, maxBytes: 100},"
            " redact: {headers: [X-Session], query: [Token]}}}",
            "a",
        ),
        document(
            "{logging: {sample: 0.25, headers: All, query: All, redact: {headers: [X-Key, x-session]},"
            " bodies: {request: false, response: true, contentTypes: [Application/JSON, text/*]},"
            " webSocket: {messages: 10}, tracing: Propagate}}",
            "b",
        ),
    )
    assert result.logging == request_log.RequestLog(
        sample=0.25,
        headers=request_log.HeaderLog.NAMES,
        query=request_log.QueryLog.ALL,
        redact_headers=("x-session", "x-key"),
        redact_query=("Token",),
        bodies=request_log.BodyLog(
            request=True, response=True, max_bytes=100, content_types=("application/json", "text/*")
        ),
        web_socket=request_log.WebSocketLog(messages=10),
        tracing=request_log.Tracing.PROPAGATE,
    )
    assert config.decode(config.encode(result)) == result


def test_a_policy_that_asks_for_what_records_tell_anyway_is_written_as_before():
    asked = compiled(document("{logging: {sample: 1, headers: None, bodies: {response: false}}}"))
    assert config.encode(asked) == config.encode(SidecarConfig())


@pytest.mark.parametrize(
    ("logging", "says"),
    [
        ("{sample: 10}", "spec.logging.sample: found the number 10; allowed: a number from 0 (none) to 1 (all)"),
        ("{sample: 10%}", "spec.logging.sample: found '10%'; allowed: a number from 0"),
        ("{sample: true}", "spec.logging.sample: found the boolean true; allowed: a number from 0"),
        ("{headers: Everything}", "spec.logging.headers: found 'Everything'; allowed: None, Names, Redacted, All"),
        ("{headers: redacted}", "spec.logging.headers: found 'redacted'; did you mean Redacted?"),
        ("{bodies: true}", "spec.logging.bodies: found the boolean true; allowed: an object with request, response"),
        ("{bodies: {maxBytes: 0}}", "spec.logging.bodies.maxBytes: found the number 0; allowed: a whole number from 1"),
        ("{bodies: {contentTypes: []}}", "spec.logging.bodies.contentTypes: found an empty list"),
        ("{bodies: {contentTypes: [json]}}", "contentTypes[0]: found 'json'; allowed: a media type such as application/json"),
        ("{bodies: {contentTypes: [text/html;charset=utf-8]}}", "without parameters"),
        ("{redact: {headers: [X Y]}}", "spec.logging.redact.headers[0]: found 'X Y'; allowed: the name of a header field"),
        ("{webSocket: {messages: true}}", "spec.logging.webSocket.messages: found the boolean true"),
        ("{body: {}}", "spec.logging.body: unknown field; did you mean bodies?"),
    ],
)  # fmt: skip
def test_what_logging_does_not_allow_is_told(logging, says):
    with pytest.raises(PolicyError, match=re.escape(says)):
        compiled(document(f"{{logging: {logging}}}"))
