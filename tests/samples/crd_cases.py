"""Specs that an API server refuses, each with the field that its answer names and what it says is allowed; and others."""

from typing import Any, NamedTuple


class Invalid(NamedTuple):
    kind: str
    path: str
    allowed: str
    spec: Any


class Valid(NamedTuple):
    kind: str
    name: str
    spec: Any


JA4 = "t13d1516h2_8daaf6152771_02713d6af862"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
_PORTS = "'^[0-9]{1,5}(-[0-9]{1,5})?$'"
_IDS = "'^[0-9]{1,10}(-[0-9]{1,10})?$'"
_DURATION = "(h|m|s|ms))+$'"
_CIDR = "allowed: an address or a network, such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32"
_HOST = 'allowed: a host name, "*.example.com" for all names below it, or "*"'
_NAME = "allowed: the name of an object: lower-case letters, digits, - and ."
_FIXED = "allowed: delete the exception and make another"


def _rule(**match: Any) -> dict[str, Any]:
    return {"rules": [{"action": "Deny", "match": match}]}


def _match(path: str, allowed: str, **match: Any) -> Invalid:
    return Invalid("InterceptionPolicy", f"spec.rules[0].match.{path}", allowed, _rule(**match))


def _http(path: str, allowed: str, **match: Any) -> Invalid:
    rules = [{"action": "Intercept", "http": [{"match": match}]}]
    return Invalid("InterceptionPolicy", f"spec.rules[0].http[0].match.{path}", allowed, {"rules": rules})


def _capture(path: str, allowed: str, **capture: Any) -> Invalid:
    return Invalid("InterceptionPolicy", f"spec.capture.{path}", allowed, {"capture": capture})


def _trust(path: str, allowed: str, **spec: Any) -> Invalid:
    return Invalid("TrustPolicy", f"spec.{path}", allowed, spec)


def _exception(path: str, allowed: str, **spec: Any) -> Invalid:
    return Invalid("TrustException", f"spec.{path}", allowed, {"host": "api.example.com", **spec})


def _policy(path: str, allowed: str, spec: Any, kind: str = "InterceptionPolicy") -> Invalid:
    return Invalid(kind, path, allowed, spec)


def _requirement(**requirement: Any) -> dict[str, Any]:
    return {"podSelector": {"matchExpressions": [{"key": "app", **requirement}]}}


INVALID = (
    # logging
    _policy("spec.logging.sample", "should be less than or equal to 1", {"logging": {"sample": 1.5}}),
    _policy("spec.logging.headers", '"None", "Names", "Redacted", "All"', {"logging": {"headers": "Some"}}),
    _policy("spec.logging.bodies.contentTypes[0]", "should match", {"logging": {"bodies": {"contentTypes": ["json"]}}}),
    _policy(
        "spec.logging.bodies.maxBytes", "should be less than or equal to", {"logging": {"bodies": {"maxBytes": 2e6}}}
    ),
    # hosts
    _match("hosts[0]", _HOST, hosts=["https://example.com"]),
    _match("hosts[0]", _HOST, hosts=["example.com:443"]),
    _match("hosts[0]", _HOST, hosts=["example.com/path"]),
    _match("hosts[1]", _HOST, hosts=["example.com", "*.*.example.com"]),
    _match("hosts[0]", "xn--", hosts=["bücher.example"]),
    _match("hosts[0]", "an address belongs in cidrs", hosts=["10.0.0.1"]),
    _match("hosts[0]", "may not be more than 255", hosts=["a." * 200]),
    _match("hosts", "at least 1 items", hosts=[]),
    _match("hosts", "must have at most 100 items", hosts=[f"h{n}.example" for n in range(101)]),
    # addresses
    _match("cidrs[0]", _CIDR, cidrs=["10.0.0.0/33"]),
    _match("cidrs[0]", _CIDR, cidrs=["10.0.0.256"]),
    _match("cidrs[0]", _CIDR, cidrs=["2001:db8::/129"]),
    _match("cidrs[0]", _CIDR, cidrs=["example.com"]),
    # numbers
    _match("ports[0]", _PORTS, ports=["http"]),
    _match("ports[0]", "less than or equal to 65535", ports=[65536]),
    _match("ports[0]", "greater than or equal to 1", ports=[0]),
    _match("ports[0]", _PORTS, ports=["80,443"]),
    _match("protocols[0]", '"tls", "http", "dns", "tcp", "udp"', protocols=["https"]),
    _match("apps[0].uids[0]", "greater than or equal to 0", apps=[{"uids": [-1]}]),
    _match("apps[0].uids[0]", _IDS, apps=[{"uids": ["root"]}]),
    _match("apps[0].ja4[0]", f"allowed: a JA4 fingerprint such as {JA4}", apps=[{"ja4": ["t13d"]}]),
    _match("apps[0].containers", "allowed: uids, ja4", apps=[{"containers": ["web"]}]),
    _match("user", "unknown field", user="root"),
    # rules
    _policy("spec.rules[0].action", "Required value", {"rules": [{"name": "a"}]}),
    _policy("spec.rules[0].action", '"Intercept", "Passthrough", "Deny"', {"rules": [{"action": "Allow"}]}),
    _policy("spec.rules", "allowed: for each rule a name of its own", {"rules": [{"name": "a", "action": "Deny"}] * 2}),
    _policy("spec.rules[0].name", "allowed: letters, digits", {"rules": [{"name": "no tracker", "action": "Deny"}]}),
    _http("methods[0]", "should match", methods=["GE T"]),
    _http("paths[0].type", '"Exact", "Prefix", "Glob", "Regex"', paths=[{"value": "/", "type": "Suffix"}]),
    _http("paths[0].value", "Required value", paths=[{"type": "Exact"}]),
    _http("headers[0].name", "should match", headers=[{"name": "X Y"}]),
    _policy(
        "spec.rules[0].http[0].action",
        '"Allow", "Deny"',
        {"rules": [{"action": "Intercept", "http": [{"action": "Intercept"}]}]},
    ),
    _policy("spec.rules", "must have at most 64 items", {"rules": [{"action": "Deny"}] * 65}),
    # the policy itself
    _policy("spec.priority", "less than or equal to 10000", {"priority": 10001}),
    _policy("spec.priority", "greater than or equal to 0", {"priority": -1}),
    _policy("spec.priority", "must be of type integer", {"priority": "high"}),
    _policy("spec.failureMode", '"Open", "Closed"', {"failureMode": "open"}),
    _policy("spec.startup", '"Hold", "Open"', {"startup": "Wait"}),
    _policy("spec.verifyAddress", '"Ignore", "Log", "Deny"', {"verifyAddress": True}),
    _policy("spec.defaultAction", '"Intercept", "Passthrough", "Deny"', {"defaultAction": "Drop"}),
    _policy("spec.failuremode", "unknown field", {"failuremode": "Open"}),
    _policy("spec.namespaceSelector", "unknown field", {"namespaceSelector": {}}),
    _policy("spec", "Required value", None),
    _policy("spec.podSelector.matchLabels.app", "must be of type string", {"podSelector": {"matchLabels": {"app": 1}}}),
    _policy(
        "spec.podSelector.matchExpressions[0].operator", '"In", "NotIn", "Exists"', _requirement(operator="Equals")
    ),
    _policy(
        "spec.podSelector.matchExpressions[0].values", "allowed: at least one value with", _requirement(operator="In")
    ),
    _policy(
        "spec.podSelector.matchExpressions[0].values",
        "none with Exists and DoesNotExist",
        _requirement(operator="Exists", values=["a"]),
    ),
    # references
    _policy("spec.trustPolicyRef.name", "Required value", {"trustPolicyRef": {"kind": "TrustPolicy"}}),
    _policy("spec.trustPolicyRef.name", _NAME, {"trustPolicyRef": {"name": "My_Policy"}}),
    _policy(
        "spec.trustPolicyRef.kind",
        '"TrustPolicy", "ClusterTrustPolicy"',
        {"trustPolicyRef": {"name": "a", "kind": "Secret"}},
    ),
    _policy(
        "spec.trustPolicyRef.kind",
        "allowed: ClusterTrustPolicy",
        {"trustPolicyRef": {"name": "a"}},
        "ClusterInterceptionPolicy",
    ),
    _policy(
        "spec.trustPolicyRef.kind",
        "allowed: ClusterTrustPolicy",
        {"trustPolicyRef": {"name": "a", "kind": "TrustPolicy"}},
        "ClusterInterceptionPolicy",
    ),
    # capture
    _capture("mode", '"TPROXY", "Redirect"', mode="NAT"),
    _capture("ports", "at least 1 items", ports=[]),
    _capture("ports[0]", _PORTS, ports=["1-2-3"]),
    _capture("exclude.ports[0]", "less than or equal to 65535", exclude={"ports": [70000]}),
    _capture("exclude.cidrs[0]", _CIDR, exclude={"cidrs": ["all"]}),
    _capture("exclude.gids[0]", "less than or equal to 4294967294", exclude={"gids": [4294967295]}),
    _capture("exclude.interfaces[0]", "allowed: at most 15 letters", exclude={"interfaces": ["eth0/1"]}),
    _capture("dns.server", "allowed: an address, such as 192.0.2.53", dns={"server": "dns.example.com"}),
    _capture("dns.denial", '"NXDOMAIN", "REFUSED"', dns={"denial": "SERVFAIL"}),
    _capture("dns.cache", "must be of type boolean", dns={"cache": "yes"}),
    _capture("quic", '"Reject", "Allow"', quic="Deny"),
    _capture("otherUDP", '"Allow", "Deny", "Ignore"', otherUDP="Reject"),
    _capture("inbound", "unknown field", inbound=True),
    # trust
    _trust("ca.source", '"Pod", "Secret"', ca={"source": "Issuer"}),
    _trust("ca.secretRef", "allowed: with the source Secret, the name of a Secret", ca={"source": "Secret"}),
    _trust("ca.secretRef", "with no other source", ca={"source": "Pod", "secretRef": {"name": "ca"}}),
    _trust("ca.secretRef", "with no other source", ca={"secretRef": {"name": "ca"}}),
    _trust("ca.secretRef.name", _NAME, ca={"source": "Secret", "secretRef": {"name": "CA"}}),
    _trust("ca.keyAlgorithm", '"ECDSA-P256"', ca={"keyAlgorithm": "RSA-2048"}),
    _trust("ca.leafLifetime", _DURATION, ca={"leafLifetime": "1 day"}),
    _trust("ca.leafLifetime", "allowed: at least one minute", ca={"leafLifetime": "59s"}),
    _trust("ca.leafLifetime", "greater than or equal to 60", ca={"leafLifetime": 10}),
    _trust("injection.containers", "at least 1 items", injection={"containers": []}),
    _trust("injection.containers[0]", "allowed: the name of a container", injection={"containers": ["Web"]}),
    _trust("injection.java", "must be of type boolean", injection={"java": "true"}),
    _trust("upstream.roots[0]", "allowed: exactly one of pem, configMap", upstream={"roots": [{}]}),
    _trust(
        "upstream.roots[0]",
        "allowed: exactly one of pem, configMap",
        upstream={"roots": [{"pem": PEM, "configMap": {"name": "roots", "key": "ca.crt"}}]},
    ),
    _trust("upstream.roots[0].pem", "-----BEGIN CERTIFICATE-----", upstream={"roots": [{"pem": "MIIB"}]}),
    _trust("upstream.roots[0].configMap.key", "Required value", upstream={"roots": [{"configMap": {"name": "roots"}}]}),
    _trust(
        "upstream.roots[0].configMap.key",
        "allowed: the key of a ConfigMap",
        upstream={"roots": [{"configMap": {"name": "roots", "key": "a/b"}}]},
    ),
    _trust("upstream.roots[0].file", "unknown field", upstream={"roots": [{"file": "ca.pem"}]}),
    _trust("upstream.systemRoots", "allowed: false only with roots", upstream={"systemRoots": False}),
    _trust("upstream.systemRoots", "allowed: false only with roots", upstream={"systemRoots": False, "roots": []}),
    _trust("upstream.minTLSVersion", '"1.2", "1.3"', upstream={"minTLSVersion": "1.1"}),
    _trust("upstream.minTLSVersion", "must be of type string", upstream={"minTLSVersion": 1.2}),
    _trust("upstream.onInvalidCertificate", '"Reject", "Passthrough"', upstream={"onInvalidCertificate": "Ignore"}),
    _trust("failOpen.failureThreshold", "less than or equal to 100", failOpen={"failureThreshold": 101}),
    _trust("failOpen.failureThreshold", "greater than or equal to 1", failOpen={"failureThreshold": 0}),
    _trust("failOpen.ttl", _DURATION, failOpen={"ttl": "soon"}),
    _trust("failOpen.ttl", "greater than or equal to 1", failOpen={"ttl": 0}),
    _trust("failOpen.maxTTL", "allowed: at least ttl", failOpen={"ttl": "2h", "maxTTL": "1h"}),
    _trust("failOpen.maxTTL", "allowed: at least ttl", failOpen={"ttl": "2h", "maxTTL": 600}),
    _trust("failOpen.maxTTL", "allowed: at least ttl", failOpen={"ttl": 601, "maxTTL": "10m"}),
    _trust("neverIntercept[0]", _HOST, neverIntercept=["bank.example/login"]),
    _trust("neverIntercept[0]", "a rule with cidrs", neverIntercept=["192.0.2.1"]),
    # exceptions
    _exception("host", 'allowed: one host name in lower case, an address, or "*" alone', host="*.example.com"),
    _exception("host", "allowed: one host name in lower case", host="API.example.com"),
    _exception("host", "Required value", host=None),
    _exception("workload.kind", "allowed: a kind such as Deployment", workload={"kind": "deployment", "name": "web"}),
    _exception("workload.name", "Required value", workload={"kind": "Deployment"}),
    _exception("app.uid", "greater than or equal to 0", app={"uid": -1}),
    _exception("app.uid", "less than or equal to 4294967295", app={"uid": 2**32}),
    _exception("app.ja4", "allowed: a JA4 fingerprint", app={"ja4": "curl"}),
    _exception("decision", '"Auto", "Intercept", "Passthrough"', decision="Pin"),
    _exception("app", "allowed: uid or ja4", host="*", decision="Passthrough"),
    _exception("app", "allowed: uid or ja4", host="*", decision="Intercept", app={}),
)

_MANY = {
    "hosts": [f"{'x' * 50}-{number}.example.com" for number in range(100)],
    "cidrs": [f"2001:db8:1111:2222:3333:4444:5555:{number:x}" for number in range(100)],
    "ports": [f"{number}-{number + 1}" for number in range(1, 101)],
}
_LONG = ".".join(["a" * 63] * 3 + ["a" * 61])

VALID = (
    Valid("InterceptionPolicy", "empty", {}),
    Valid(
        "InterceptionPolicy",
        "logging",
        {
            "logging": {
                "sample": 0.25,
                "headers": "None",
                "redact": {"headers": ["X-Session"], "query": ["token"]},
                "bodies": {"request": True, "maxBytes": 1048576, "contentTypes": ["text/*", "application/json"]},
                "webSocket": {"messages": 0},
            }
        },
    ),
    Valid("InterceptionPolicy", "a-rule-for-all", {"rules": [{"action": "Passthrough"}]}),
    Valid("InterceptionPolicy", "every-host", _rule(hosts=["*"])),
    Valid(
        "InterceptionPolicy",
        "hosts-of-all-kinds",
        _rule(hosts=["Example.COM.", "*.a_b.example", "xn--bcher-kva.example"]),
    ),
    Valid("InterceptionPolicy", "the-longest-host", _rule(hosts=[_LONG, f"*.{_LONG}"])),
    Valid("InterceptionPolicy", "digits-in-hosts", _rule(hosts=["1.2.3.example", "127"])),
    Valid("InterceptionPolicy", "all-there-may-be", {"rules": [{"action": "Deny", "match": _MANY}] * 64}),
    Valid("InterceptionPolicy", "the-most-hosts", _rule(hosts=[f"host-{n}.example.com" for n in range(100)])),
    Valid(
        "InterceptionPolicy",
        "addresses",
        _rule(cidrs=["0.0.0.0/0", "::/0", "255.255.255.255", "::1", "fe80::/10", "1::"]),
    ),
    Valid("InterceptionPolicy", "a-full-address", _rule(cidrs=["2001:0db8:1111:2222:3333:4444:5555:6666/128"])),
    Valid("InterceptionPolicy", "ports", _rule(ports=[1, 65535, "443", "8000-8100"])),
    Valid("InterceptionPolicy", "ids", _rule(apps=[{"uids": [0, 4294967294, "1000-1999"]}, {"ja4": [JA4]}])),
    Valid("InterceptionPolicy", "priorities", {"priority": 0}),
    Valid("InterceptionPolicy", "rules-without-names", {"rules": [{"action": "Deny"}, {"action": "Deny"}]}),
    Valid("InterceptionPolicy", "exclude-nothing", {"capture": {"exclude": {"ports": [], "cidrs": []}}}),
    Valid(
        "InterceptionPolicy",
        "interfaces",
        {"capture": {"exclude": {"interfaces": ["eth0", "a@b.c", "net*", "a" * 15]}}},
    ),
    Valid("InterceptionPolicy", "dns-over-ipv6", {"capture": {"dns": {"server": "2001:db8::53"}}}),
    Valid(
        "InterceptionPolicy", "labels", {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "web", "empty": ""}}}
    ),
    Valid("InterceptionPolicy", "requirement", _requirement(operator="NotIn", values=["a", "b"])),
    Valid("InterceptionPolicy", "a-reference-to-its-namespace", {"trustPolicyRef": {"name": "careful"}}),
    Valid(
        "InterceptionPolicy",
        "a-reference-to-the-cluster",
        {"trustPolicyRef": {"name": "a.b", "kind": "ClusterTrustPolicy"}},
    ),
    Valid(
        "ClusterInterceptionPolicy",
        "namespaces",
        {
            "namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "Exists"}]},
            "trustPolicyRef": {"name": "all", "kind": "ClusterTrustPolicy"},
        },
    ),
    Valid("TrustPolicy", "empty", {}),
    Valid("TrustPolicy", "a-secret", {"ca": {"source": "Secret", "secretRef": {"name": "ca"}, "leafLifetime": "1m"}}),
    Valid("TrustPolicy", "seconds", {"failOpen": {"ttl": 3600, "maxTTL": 3600}}),
    Valid(
        "TrustPolicy", "mixed-durations", {"failOpen": {"ttl": "0.5h", "maxTTL": 1800}, "ca": {"leafLifetime": "1h30m"}}
    ),
    Valid("TrustPolicy", "the-longest-duration", {"failOpen": {"ttl": "87840h"}}),
    Valid("TrustPolicy", "own-roots", {"upstream": {"systemRoots": False, "roots": [{"pem": PEM}]}}),
    Valid(
        "ClusterTrustPolicy",
        "a-config-map",
        {"upstream": {"roots": [{"configMap": {"name": "roots", "key": "ca.crt"}}]}},
    ),
    Valid("ClusterTrustPolicy", "many-hosts", {"neverIntercept": [f"*.bank-{n}.example" for n in range(1000)]}),
    Valid("TrustException", "a-host", {"host": "api.example.com", "decision": "Passthrough"}),
    Valid("TrustException", "an-address", {"host": "2001:db8::7", "decision": "Intercept"}),
    Valid("TrustException", "an-app", {"host": "*", "decision": "Passthrough", "app": {"uid": 4294967295}}),
    Valid(
        "TrustException",
        "learned-of-an-app",
        {"host": "*", "app": {"ja4": JA4}, "workload": {"kind": "Job", "name": "j"}},
    ),
    Valid("TrustException", "a-whole-workload", {"host": "*", "workload": {"kind": "StatefulSet", "name": "db.main"}}),
)
"""What is at the edge of what is allowed."""
