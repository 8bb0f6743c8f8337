"""The heads that keep-alive is measured with: well-formed for everyone, each another, in wrk's own language."""

import json
import re

from bench import varied
from weir_sidecar.wire.http1 import parse_request


def test_each_head_is_a_request_of_its_own():
    parsed = [parse_request(head.encode()) for head in varied.heads()]
    assert all(head is not None and head.host == "origin.test" and not head.has_body for head in parsed)
    assert len({head.text for head in parsed if head is not None}) == len(parsed) == varied.COUNT


def test_the_script_holds_every_head_as_it_is_sent():
    texts = re.findall(r'^"GET .*"(?=,?$)', varied.script(), re.MULTILINE)
    assert [json.loads(text) for text in texts] == list(varied.heads())
