import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.contract.flow import (
    Client,
    Decision,
    FlowRecord,
    Protocol,
    Reason,
    TLSFacts,
    encode_record,
)

RECORD = FlowRecord(
    time="2026-01-02T03:04:05.678Z",
    id="1",
    client=Client(uid=1000, ja4="t13d1516h2_8daaf6152771_e5627efa2ab1", address="10.0.0.2"),
    protocol=Protocol.TLS,
    host="example.com",
    sni="example.com",
    address="192.0.2.1",
    port=443,
    alpn="h2",
    decision=Decision.INTERCEPT,
    reason=Reason.RULE,
    rule="api",
    tls=TLSFacts(client_version="1.3", upstream_version="1.3"),
    bytes_up=1,
    bytes_down=2,
    duration_ms=3.5,
)


def test_a_record_has_the_documented_fields_in_that_order():
    record = json.loads(encode_record(RECORD))
    assert list(record) == [
        "time",
        "id",
        "client",
        "protocol",
        "host",
        "sni",
        "address",
        "port",
        "alpn",
        "decision",
        "reason",
        "rule",
        "tls",
        "bytes_up",
        "bytes_down",
        "duration_ms",
        "error",
        "address_from_dns",
        "requests",
    ]
    assert list(record["client"]) == ["uid", "ja4", "address"]
    assert list(record["tls"]) == ["client_version", "upstream_version", "client_alert", "verify_error"]
    assert (record["decision"], record["reason"], record["error"]) == ("intercept", "rule", None)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(0, 1e12), st.integers(0, 2**63 - 1))
def test_a_record_is_one_line_and_reads_back(text, duration, count):
    record = msgspec.structs.replace(RECORD, host=text, error=text, duration_ms=duration, bytes_up=count)
    line = encode_record(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line, type=FlowRecord) == record


@pytest.mark.parametrize("words", [Decision, Protocol, Reason])
def test_words_are_plain(words):
    assert all(re.fullmatch(r"[a-z][a-z_]*", word) for word in words)
    assert len({word.value for word in words}) == len(words.__members__)
