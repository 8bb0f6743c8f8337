"""The references for users keep step with the code."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from weir_operator import models
from weir_operator.arrange import arrange
from weir_operator.cluster.policies import Policies
from weir_operator.compile import compile_policies
from weir_operator.decode import Decoder
from weir_operator.load import load
from weir_operator.models_logging import Bodies, Logging, Redact, WebSocket
from weir_operator.nodes import read
from weir_sidecar.contract.config import DNSDenial, FailOpen, SidecarConfig
from weir_sidecar.contract.flow import FlowError, Reason
from weir_sidecar.contract.http import Credential
from weir_sidecar.contract.request_log import HeaderLog

DOCS = Path(__file__).parents[3] / "docs"
REASONS = (DOCS / "reasons.md").read_text()
POLICY = (DOCS / "policy.md").read_text()
DEFINITIONS = [
    yaml.safe_load(path.read_text()) for path in sorted((DOCS.parent / "charts/weir/files/crds").glob("*.yaml"))
]


def rows(text):
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def test_every_reason_is_explained_once():
    before, _, _ = REASONS.partition("## Errors")
    assert sorted(rows(before)) == sorted(Reason)


def test_every_error_is_explained_once():
    _, _, errors = REASONS.partition("## Errors")
    assert sorted(rows(errors)) == sorted(FlowError)


@pytest.mark.parametrize(
    "model",
    [
        models.InterceptionSpec, models.Capture, models.Exclude, models.DNS, models.Rule, models.Match, models.App,
        models.TrustPolicyRef, models.TrustSpec, models.CA, models.Injection, models.Upstream, models.Root,
        models.FailOpen, models.KeyRef, models.HTTPRule, models.HTTPMatch, models.PathMatch, models.CredentialFrom,
        Logging, Redact, Bodies, WebSocket, models.TrustExceptionSpec, models.WorkloadRef, models.ExceptionApp,
    ],
)  # fmt: skip
def test_every_field_is_in_the_policy_reference(model):
    named = set(re.findall(r"[A-Za-z0-9]+", " ".join(re.findall(r"`([^`\n]+)`", POLICY))))
    assert {field.encode_name for field in msgspec.structs.fields(model)} <= named


def test_the_policy_reference_tells_the_defaults():
    assert "| `failOpen.ttl` | `1h` |" in POLICY
    assert "| `failOpen.maxTTL` | `24h` |" in POLICY
    assert "| `ca.leafLifetime` | `24h` |" in POLICY
    config = SidecarConfig()
    assert (config.trust.fail_open, config.trust.leaf_lifetime) == (FailOpen(ttl=3600.0, max_ttl=86400.0), 86400.0)
    assert config.capture.dns.denial is DNSDenial.NXDOMAIN
    spec = """
      failureMode: Open
      startup: Hold
      defaultAction: Intercept
      verifyAddress: Log
      priority: 1000
      capture:
        mode: TPROXY
        quic: Reject
        otherUDP: Allow
        otherProtocols: true
        inbound: false
        dns: {capture: true, stripECH: true, stripH3: true, blockDoHCanary: true, cache: false, denial: NXDOMAIN}
"""
    for line in re.findall(r"^ +(\w+): (\w+)$", spec, re.MULTILINE):
        assert re.search(rf"^\| `{line[0]}` \| `?{line[1]}`? \|", POLICY, re.MULTILINE), line
    document = f"apiVersion: weir.dev/v1alpha1\nkind: InterceptionPolicy\nmetadata: {{name: p}}\nspec:{spec}"
    assert compile_policies(arrange(load(document.encode(), "p.yaml")), {}) == config


@pytest.mark.parametrize("example", sorted((DOCS / "examples").rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_good_in_a_cluster(example):
    objects = list(yaml.safe_load_all(example.read_text()))
    for obj in objects:
        where = {} if obj["kind"].startswith("Cluster") else {"namespace": "shop"}
        obj["metadata"] |= {"generation": 1, **where}
    policies = Policies.of(objects)
    assert len(policies.keys()) == len(objects)
    assert not any(policies.problems.values())
    assert not any(policies.notices.values())


def test_the_examples_in_the_policy_reference_are_what_they_say():
    policy, requests, credentials, logging, exception = re.findall(r"```yaml\n(.*?)```", POLICY, re.DOTALL)
    config = compile_policies(arrange(load(policy.encode(), "policy.md")), {})
    assert [rule.name for rule in config.rules] == ["example/no-tracker"]
    (rule,) = compile_policies(arrange(load(requests.encode(), "policy.md")), {}).rules
    assert [(one.name, one.action) for one in rule.http] == [
        ("read-only/api/read", "Allow"), ("read-only/api/nothing-else", "Deny"),
    ]  # fmt: skip
    (rule,) = compile_policies(arrange(load(credentials.encode(), "policy.md")), {}).rules
    assert rule.http[0].credential == Credential(
        "authorization", "/run/weir/credentials/api-key/token", placeholder="the-key-of-the-agent", limited=True
    )
    asked = compile_policies(arrange(load(logging.encode(), "policy.md")), {}).logging
    assert (asked.headers, asked.bodies.response) == (HeaderLog.REDACTED, True)
    (node,), problems = read(exception.encode(), "policy.md")
    decoder = Decoder("policy.md")
    document = decoder.read(node, models.TrustException)
    assert not problems + decoder.problems
    assert document.spec.decision is models.ExceptionDecision.PASSTHROUGH


def test_short_names_are_those_of_the_definitions():
    found = dict(re.findall(r"^\| `(\w+(?:Policy|Exception))` \| `(\w+)` \|", POLICY, re.MULTILINE))
    names = (definition["spec"]["names"] for definition in DEFINITIONS)
    assert found == {name["kind"]: name["shortNames"][0] for name in names}


@pytest.mark.parametrize(
    ("script", "page"), [("reference.py", "reference.md"), ("reference_config.py", "sidecar-config.md")]
)
def test_pages_that_are_made_are_made_of_what_there_is(script, page):
    command = [sys.executable, DOCS.parent / "scripts" / script]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert made.stdout == (DOCS / page).read_text(), f"docs/{page} is old: make reference"


def test_every_field_of_a_status_is_explained():
    named = set(re.findall(r"[A-Za-z0-9]+", " ".join(re.findall(r"`([^`\n]+)`", POLICY))))
    for definition in DEFINITIONS:
        (version,) = definition["spec"]["versions"]
        status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
        fields = set(status["properties"]) - {"conditions", "observedGeneration"}
        assert fields <= named, definition["spec"]["names"]["kind"]


def test_the_limits_of_lists_are_those_of_the_definitions():
    rules, entries, never = map(
        int, re.search(r"(\d+) rules in a policy, (\d+) hosts.*?(\d+) hosts in `neverIntercept`", POLICY).groups()
    )
    specs = {
        definition["spec"]["names"]["kind"]: definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"][
            "properties"
        ]["spec"]["properties"]
        for definition in DEFINITIONS
    }
    for kind in ("InterceptionPolicy", "ClusterInterceptionPolicy"):
        assert specs[kind]["rules"]["maxItems"] == rules
        match = specs[kind]["rules"]["items"]["properties"]["match"]["properties"]
        assert {match[part]["maxItems"] for part in ("hosts", "cidrs", "ports")} == {entries}
    for kind in ("TrustPolicy", "ClusterTrustPolicy"):
        assert specs[kind]["neverIntercept"]["maxItems"] == never
