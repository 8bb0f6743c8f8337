import json
import re
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.contract.request import (
    IS_REQUEST,
    HTTPVersion,
    RequestDecision,
    RequestError,
    RequestRecord,
    encode_request,
)

DOCS = Path(__file__).parents[3] / "docs/records.md"
RECORD = RequestRecord(
    time="2026-01-02T03:04:05.678Z", flow="f-1", number=1, protocol=HTTPVersion.HTTP2, host="a.test", method="GET",
    path="/", status=200, request_bytes=0, response_bytes=5, ttfb_ms=1.0, duration_ms=2.0, rule=None,
    decision=RequestDecision.ALLOW,
)  # fmt: skip


def test_the_documentation_lists_the_fields_in_their_order_and_every_error():
    text = DOCS.read_text().partition("## Requests")[2]
    names = [
        name for cell in re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    ]
    fields = list(json.loads(encode_request(RECORD)))
    assert names == [*fields, "error", *RequestError]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(0, 1e12), st.none() | st.integers(100, 999))
def test_a_record_is_one_line_and_reads_back(text, duration, status):
    record = msgspec.structs.replace(RECORD, host=text, path=text, method=text, duration_ms=duration, status=status)
    line = encode_request(record)
    assert line.startswith(IS_REQUEST)
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line, type=RequestRecord) == record
