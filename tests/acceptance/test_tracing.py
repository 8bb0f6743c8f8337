"""Trace context through a real sidecar: what curl's servers see, what records tell, and the spans that are made of it."""

import re

import pytest

from lab.collector import collector
from lab.policy import Policy
from weir_cli.main import main

pytestmark = pytest.mark.netns

HOST = "two.tls.weir.test"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_the_sidecar_is_a_hop_and_its_spans_are_the_servers_parents(weir_lab, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    rule = {"name": "web", "match": {"hosts": ["*.weir.test"]}, "action": "Intercept"}
    policy = Policy(
        root=weir_lab.pki.ca_file, interception={"rules": [rule], "logging": {"tracing": "Propagate", "sample": 1}}
    )
    curl = f"curl -sS https://{HOST}/headers -H 'tracestate: v=1'"
    traced = f"{curl} -H 'traceparent: 00-{TRACE}-{CALLER}-01'"
    commands = (f"{traced} --http1.1", f"{traced} --http2", f"{curl} --http2")
    done = weir_lab.run_weir(["sh", "-c", "\n".join(f"{one}; echo" for one in commands)], policy)
    seen = re.findall(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0([0-9a-f])", done.stdout)
    told = [record["trace"] for record in done.requests]
    assert seen == [
        (one["trace_id"], one["span_id"], flags) for one, flags in zip(told, ("1", "1", "3"), strict=True)
    ], done.stdout + done.stderr
    assert [(one["trace_id"], one["parent_id"]) for one in told[:2]] == [(TRACE, CALLER)] * 2
    assert (told[2]["parent_id"], told[2]["sampled"]) == (None, True)
    assert done.stdout.count("v=1") == 2, "the state of no trace goes on with none"
    with collector() as target:
        assert main(["flows", str(done.record_file), "--otlp", target.url]) == 0
        spans = [one.span for one in target.spans]
    assert [one.span_id.hex() for one in spans] == [one["span_id"] for one in told]
    assert [one.parent_span_id.hex() for one in spans] == [CALLER, CALLER, ""]
