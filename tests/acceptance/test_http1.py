"""curl speaks HTTP/1.1 through Weir: the same with and without it, and what rules on requests say, in one run of each."""

import base64
import json
import os
import shlex
from pathlib import Path

import pytest

from lab.lab import Lab, Run
from lab.policy import Policy

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

URL = "https://http1.tls.weir.test"
PLAIN = "http://http1.tls.weir.test"
SECRET = "s3cret-of-the-test"
MARK = "PLACEHOLDER-OF-THE-TEST"
FILE = "/usr/bin/env"

SAME = {
    "get": [f"{URL}/hello"],
    "plain": [f"{PLAIN}/hello"],
    "keep-alive": [f"{URL}/hello", f"{URL}/status/404", f"{URL}/hello"],
    "head": ["-I", f"{URL}/bytes/100000"],
    "put": ["-T", FILE, f"{URL}/digest"],
    "put-chunked": ["-T", FILE, "-H", "Transfer-Encoding: chunked", f"{URL}/digest"],
    "expect": ["-H", "Expect: 100-continue", "-T", FILE, f"{URL}/digest"],
    "post": ["-d", "a=b", f"{URL}/digest"],
    "compressed": ["--compressed", f"{URL}/hello"],
    "http1.0": ["--http1.0", f"{URL}/hello"],
    "errors": [f"{URL}/status/404", f"{URL}/status/500", f"{URL}/hello"],
    "slow": [f"{URL}/slow"],
    "query": [f"{URL}/hello?token=of-somebody"],
    "large": [f"{URL}/bytes/3000000"],
    "large plain": [f"{PLAIN}/bytes/3000000"],
}
GOVERNED = {
    "denied among others": [f"{URL}/hello", f"{URL}/status/418", f"{URL}/hello"],
    "fronted": ["-H", "Host: denied.tls.weir.test", f"{URL}/hello"],
    "fronted plain": ["-H", "Host: denied.tls.weir.test", f"{PLAIN}/hello"],
    "changed": ["-H", "Cookie: a=b", "-D", "-", f"{URL}/headers"],
    "slow down": ["-w", "took %{time_total}", f"{URL}/facts"],
    "aborted": ["-X", "DELETE", f"{URL}/hello"],
    "credential": ["-H", f"Authorization: token {MARK}", f"{URL}/headers"],
    "placeholder elsewhere": ["-H", f"X-Mine: {MARK}", f"{URL}/headers"],
}


def _script(cases: dict[str, list[str]], ca: Path | None = None) -> list[str]:
    """Under Weir curl is made to trust it, and is not told whom to trust."""
    trust = [] if ca is None else ["--cacert", str(ca)]

    def one(name: str, argv: list[str]) -> str:
        curl = ["curl", "-sS", "--http1.1", *trust, "-w", "<%{http_code} %{num_connects}>", *argv]
        return f"echo {shlex.quote('=== ' + name)}; {shlex.join(curl)} 2>&1 | base64 -w0; echo"

    return ["sh", "-c", "; ".join(one(*case) for case in cases.items())]


def _told(run: Run) -> dict[str, str]:
    parts = (part.split("\n") for part in run.stdout.split("=== ")[1:])
    return {name: base64.b64decode(text).decode("latin-1") for name, text, *_ in parts}


def _governing(root: Path, secret: Path) -> Policy:
    http = [
        {"name": "teapot", "match": {"paths": [{"value": "/status/418"}]}, "action": "Deny", "body": "no tea"},
        {"name": "cut", "match": {"methods": ["DELETE"]}, "abort": True},
        {"name": "wait", "match": {"paths": [{"value": "/facts"}]}, "delay": "300ms"},
        {
            "name": "key",
            "match": {"headers": [{"name": "Authorization"}]},
            "credentialFrom": {"header": "Authorization", "file": str(secret), "placeholder": MARK},
        },
        {
            "name": "change",
            "setRequestHeaders": [{"name": "X-Added", "value": "by-weir"}],
            "removeRequestHeaders": ["Cookie"],
            "setResponseHeaders": [{"name": "X-Seen", "value": "yes"}],
            "removeResponseHeaders": ["X-Lab"],
        },
    ]
    rules = [
        {"name": "lab", "match": {"hosts": ["http1.tls.weir.test"]}, "action": "Intercept", "http": http},
        {"name": "no", "match": {"hosts": ["denied.tls.weir.test"]}, "action": "Deny"},
    ]
    # All that can be told: what a credential touches must not be among it.
    logging = {"headers": "All", "query": "All", "bodies": {"request": True, "response": True, "maxBytes": 100000}}
    return Policy(root=root, interception={"rules": rules, "logging": logging})


@pytest.fixture(scope="module")
def direct(lab: Lab) -> dict[str, str]:
    return _told(lab.run_direct(_script(SAME, lab.pki.ca_file)))


@pytest.fixture(scope="module")
def proxied(weir_lab: Lab) -> Run:
    return weir_lab.run_weir(_script(SAME), Policy(root=weir_lab.pki.ca_file))


@pytest.fixture(scope="module")
def governed(weir_lab: Lab) -> Run:
    secret = weir_lab.directory / "secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o400)
    os.chown(secret, 15801, 15801)
    return weir_lab.run_weir(_script(GOVERNED), _governing(weir_lab.pki.ca_file, secret))


@pytest.mark.parametrize("name", SAME)
def test_curl_gets_the_same(direct: dict[str, str], proxied: Run, name: str) -> None:
    assert _told(proxied)[name] == direct[name]


def test_each_request_is_told(proxied: Run) -> None:
    urls = [word for argv in SAME.values() for word in argv if word.startswith("http")]
    assert len(proxied.requests) == len(urls)
    assert {one["protocol"] for one in proxied.requests} == {"http/1.1"}
    assert all(one["error"] is None and one["status"] for one in proxied.requests)
    flows = {one["id"]: one for one in proxied.records}
    assert all(flows[one["flow"]]["requests"] >= one["number"] for one in proxied.requests)
    sent = Path(FILE).stat().st_size
    assert [one["request_bytes"] for one in proxied.requests if one["method"] == "PUT"] == [sent] * 3
    assert [one["response_bytes"] for one in proxied.requests if one["path"] == "/bytes/3000000"] == [3000000] * 2
    assert "/hello?token=*" in {one["path"] for one in proxied.requests}
    assert "of-somebody" not in json.dumps(proxied.requests)


def test_a_denied_request_leaves_its_connection_to_the_others(governed: Run) -> None:
    text = _told(governed)["denied among others"]
    assert "<200 1>no tea<403 0>" in text
    assert text.count("<200 ") == 2
    assert text.count(" 0>") == 2, "curl made a second connection"


@pytest.mark.parametrize("name", ["fronted", "fronted plain"])
def test_another_host_than_the_connections_is_refused(governed: Run, name: str) -> None:
    assert "Denied by policy: lab/no" in _told(governed)[name]
    assert "<403 1>" in _told(governed)[name]


def test_header_fields_are_changed(governed: Run) -> None:
    text = _told(governed)["changed"].lower()
    assert '"x-added": "by-weir"' in text
    assert "cookie" not in text
    assert "x-seen: yes" in text
    assert "x-lab" not in text


def test_heads_and_bodies_are_told_where_a_policy_asks(governed: Run) -> None:
    (changed,) = (one for one in governed.requests if ["Cookie", "a=b"] in one["request"]["headers"])
    assert changed["request"]["version"] == "HTTP/1.1"
    assert "x-lab" in dict(changed["response"]["headers"])
    assert json.loads(changed["response"]["body"]["content"])["x-added"] == "by-weir"
    assert not changed["response"]["body"]["truncated"]


def test_delay_and_abort(governed: Run) -> None:
    told = _told(governed)
    assert float(told["slow down"].partition("took ")[2]) >= 0.3
    assert "<000 " in told["aborted"]
    assert "aborted_by_rule" in {one["error"] for one in governed.requests}


def test_a_credential_reaches_the_server_and_nobody_else(governed: Run) -> None:
    told = _told(governed)
    assert f'"authorization": "token {SECRET}"' in told["credential"]
    assert "<403 " in told["placeholder elsewhere"]
    assert governed.record_file is not None
    assert SECRET not in governed.record_file.read_text() + governed.stderr
