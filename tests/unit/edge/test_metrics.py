"""The exposition: what Prometheus would read, and that the documentation lists it."""

import re
from pathlib import Path

import pytest

from weir_sidecar.contract.flow import Client, Decision, FlowRecord, Protocol, Reason
from weir_sidecar.edge.metrics import DURATION_BUCKETS, Metrics, RecordSinkKind

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


def record(duration_ms=1.0, reason=Reason.DEFAULT, protocol=Protocol.TLS, host="example.com"):
    return FlowRecord(
        time="2026-01-01T00:00:00Z", id="1", client=Client(), protocol=protocol, host=host, sni=None,
        address="192.0.2.1", port=443, alpn=None, decision=Decision.INTERCEPT, reason=reason, rule=None, tls=None,
        bytes_up=3, bytes_down=5, duration_ms=duration_ms,
    )  # fmt: skip


def values(metrics):
    """Samples by their whole name, labels included; every other line must be HELP or TYPE, in that order."""
    found = {}
    for line in metrics.render().decode().splitlines():
        if not line.startswith("# "):
            name, _, value = line.rpartition(" ")
            assert re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"\\]*"(,[a-z]+="[^"\\]*")*\})?', name), line
            assert name not in found
            found[name] = float(value)
    return found


def test_flows_are_counted_by_their_words():
    metrics = Metrics("1.2.3")
    for reason in (Reason.RULE, Reason.RULE, Reason.DEFAULT):
        metrics.count(record(reason=reason))
    found = values(metrics)
    assert found['weir_flows_total{protocol="tls",decision="intercept",reason="rule"}'] == 2
    assert found['weir_flows_total{protocol="tls",decision="intercept",reason="default"}'] == 1
    assert found['weir_flow_bytes_total{direction="up"}'] == 9
    assert found['weir_flow_bytes_total{direction="down"}'] == 15
    assert found['weir_build_info{version="1.2.3"}'] == 1


@pytest.mark.parametrize(("milliseconds", "bound"), [(0, 0.001), (1, 0.001), (1.01, 0.005), (600_000, 600.0)])
def test_a_duration_is_in_its_bucket_and_all_above(milliseconds, bound):
    metrics = Metrics("1")
    metrics.count(record(duration_ms=milliseconds))
    found = values(metrics)
    for edge in DURATION_BUCKETS:
        assert found[f'weir_flow_duration_seconds_bucket{{le="{edge}"}}'] == (edge >= bound)
    assert found['weir_flow_duration_seconds_bucket{le="+Inf"}'] == found["weir_flow_duration_seconds_count"] == 1
    assert found["weir_flow_duration_seconds_sum"] == milliseconds / 1000


def test_longer_than_all_bounds_is_counted_too():
    metrics = Metrics("1")
    metrics.count(record(duration_ms=1e9))
    found = values(metrics)
    assert found['weir_flow_duration_seconds_bucket{le="3600.0"}'] == 0
    assert found['weir_flow_duration_seconds_bucket{le="+Inf"}'] == 1


def test_gauges_say_what_is_at_the_moment():
    states = {"trusted": 4, "pinned": 1}
    metrics = Metrics("1", trust_states=lambda: states, heartbeats_missed=lambda: 7)
    metrics.flows_open, metrics.config_generation, metrics.held_syns_lost = 3, 12, 5
    metrics.records_lost[RecordSinkKind.FILE] += 2
    states["trusted"] = 5
    found = values(metrics)
    assert found["weir_flows_open"] == 3
    assert found["weir_config_generation"] == 12
    assert found['weir_trust_entries{state="trusted"}'] == 5
    assert found['weir_records_lost_total{sink="file"}'] == 2
    assert found['weir_records_lost_total{sink="follower"}'] == 0
    assert found["weir_heartbeats_missed_total"] == 7
    assert found["weir_held_syns_lost_total"] == 5
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert found["process_cpu_seconds_total"] > 0
    assert 0 < found["process_open_fds"] < found["process_max_fds"]


def test_the_stream_and_the_config_in_force():
    metrics = Metrics("1")
    metrics.config_time, metrics.stream_connected, metrics.stream_connections = 1e9, True, 3
    found = values(metrics)
    assert found["weir_config_timestamp_seconds"] == 1e9
    assert found["weir_stream_connected"] == 1
    assert found["weir_stream_connections_total"] == 3


def test_flows_by_decision():
    metrics = Metrics("1")
    for protocol in (Protocol.TLS, Protocol.DNS):
        metrics.count(record(protocol=protocol))
    assert metrics.flows_by_decision() == {"intercept": 2, "passthrough": 0, "deny": 0}


def test_no_series_for_each_host():
    metrics = Metrics("1")
    for number in range(50):
        metrics.count(record(host=f'h{number}"\n'))
    assert b"h7" not in metrics.render()


def test_a_label_value_cannot_break_out():
    assert b'weir_build_info{version="a\\"\\\\\\nb"} 1' in Metrics('a"\\\nb').render()


def test_the_documentation_lists_each_metric_with_its_type():
    types = re.findall(r"^# TYPE (\S+) (\S+)$", Metrics("1").render().decode(), re.MULTILINE)
    helps = re.findall(r"^# HELP (\S+) \S", Metrics("1").render().decode(), re.MULTILINE)
    assert helps == [name for name, _ in types]
    of_the_sidecar, _, _ = DOCS.read_text().partition("## The node's agent")
    assert re.findall(r"^\| `(\w+)` \| (\w+) \|", of_the_sidecar, re.MULTILINE) == types
