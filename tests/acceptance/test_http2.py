"""HTTP/2 through a real sidecar: clients that nobody here wrote see what they see without it, but for what rules say."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.lab import WEB, Lab, Run
from lab.policy import Policy

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]

HOST = "two.tls.weir.test"
GRPC = 8443
CLEAR = 8080
HTTP = [
    {"name": "secret", "match": {"paths": [{"value": "/status/200/secret"}]}, "action": "Deny", "body": "not here\n"},
    {"name": "call", "match": {"paths": [{"value": "/lab.Peer/Denied"}]}, "action": "Deny"},
    {"name": "cut", "match": {"paths": [{"value": "/lab.Peer/Cut"}]}, "abort": True},
    {"name": "late", "match": {"paths": [{"value": "/lab.Peer/Late"}]}, "delay": "60s"},
    {
        "name": "seen",
        "match": {"paths": [{"value": "^/lab[.]Peer/(Seen|seen)$", "type": "Regex"}]},
        "setRequestHeaders": [{"name": "X-Ours", "value": "set"}],
        "removeRequestHeaders": ["X-Hidden"],
        "setResponseHeaders": [{"name": "X-Answer", "value": "seen"}],
    },
    {"name": "reset", "match": {"paths": [{"value": "/status/200/reset"}]}, "abort": True},
    {"name": "slow", "match": {"paths": [{"value": "/status/200/slow"}]}, "delay": "700ms"},
    {
        "name": "edit",
        "match": {"paths": [{"value": "/echo"}]},
        "setRequestHeaders": [{"name": "X-Ours", "value": "set"}],
        "removeRequestHeaders": ["Cookie"],
        "setResponseHeaders": [{"name": "X-Answer", "value": "seen"}],
    },
]


@pytest.fixture(scope="module")
def peers(lab: Lab) -> Iterator[Path]:
    """A gRPC server and one of HTTP/2 without TLS beside the lab's origins; gives the file that the latter serves."""
    if shutil.which("nghttpd") is None:
        pytest.skip("nghttpd is not installed; `make bench-peers` installs it")
    root = lab.directory / "clear"
    root.mkdir()
    file = root / "file"
    file.write_bytes(bytes(range(256)) * 4096)
    certificate = str(lab.directory / "tls.pem")
    argv = [sys.executable, "-m", "lab.grpc_peer", "serve", certificate, str(GRPC)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/usr/sbin"}
    clear = ["nghttpd", "--no-tls", "-a", WEB["tls"], "-d", str(root), str(CLEAR)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment}
    with (
        subprocess.Popen(lab.network.in_net(argv), text=True, **pipes) as served,
        subprocess.Popen(lab.network.in_net(clear), **pipes) as cleared,
    ):
        assert served.stdout
        assert served.stdout.readline() == "ready\n"
        try:
            yield file
        finally:
            cleared.terminate()
            served.communicate(timeout=20)


@pytest.fixture(scope="module")
def policy(lab: Lab) -> Policy:
    rule = {"name": "web", "match": {"hosts": ["*.weir.test"]}, "action": "Intercept", "http": HTTP}
    return Policy(root=lab.pki.ca_file, interception={"rules": [rule]})


def shell(lab: Lab, policy: Policy, *commands: str) -> Run:
    done = lab.run_weir(["sh", "-c", "\n".join(commands)], policy)
    assert all(record["protocol"] == "h2" for record in done.requests), done.stderr
    return done


def rules(done: Run) -> list[tuple[str, int | None, str | None]]:
    return [(one["path"], one["status"], (one["rule"] or "").rpartition("/")[2] or None) for one in done.requests]


def test_curl_gets_and_sends_bodies(weir_lab, policy):
    done = shell(
        weir_lab,
        policy,
        f"curl -sS --http2 https://{HOST}/bytes/3000000 | wc -c",
        f"head -c 3000000 /dev/zero | curl -sS --http2 -T - https://{HOST}/digest -w '\\n'",
        f"curl -sS --http2 --compressed https://{HOST}/bytes/10 -o /dev/null -w '%{{http_version}} %{{http_code}}\\n'",
    )
    assert done.stdout.split()[0] == "3000000", done.stderr
    assert done.stdout.splitlines()[-1] == "2 200"
    assert [(one["method"], one["request_bytes"], one["response_bytes"]) for one in done.requests][:1] == [
        ("GET", 0, 3000000)
    ]
    assert [one["request_bytes"] for one in done.requests if one["method"] == "PUT"] == [3000000]
    assert all(one["error"] is None for one in done.requests)
    assert all(record["requests"] == 1 for record in done.records if record["protocol"] == "tls")


def test_curl_is_denied_reset_delayed_and_edited(weir_lab, policy):
    base = f"https://{HOST}/status/200"
    written = "-w '%{http_code} %{time_total}\\n'"
    done = shell(
        weir_lab,
        policy,
        f"curl -sS --http2 {base}/secret {written}",
        f"curl -sS --http2 {base}/reset; echo $?",
        f"curl -sS --http2 {base}/slow -o /dev/null {written}",
        f"curl -sS --http2 -b a=b https://{HOST}/echo -D -",
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "not here", done.stderr
    assert lines[1].startswith("403 ")
    assert lines[2] == "92", "a stream error"
    assert float(lines[3].split()[1]) >= 0.7
    assert "x-answer: seen" in lines
    assert [rule for _, _, rule in rules(done)] == ["secret", "reset", "slow", "edit"]


def test_prior_knowledge_without_tls(weir_lab, policy, peers):
    url = f"http://{HOST}:{CLEAR}"
    done = shell(
        weir_lab,
        policy,
        f"curl -sS --http2-prior-knowledge {url}/file | cmp - {peers} && echo same",
        f"curl -sS --http2-prior-knowledge {url}/lab.Peer/Denied -o /dev/null -w '%{{http_code}}\\n'",
        f"nghttp {url}/file {url}/status/200/secret {url}/file?again | tr -cd '\\377' | wc -c",
    )
    assert done.stdout.split() == ["same", "403", str(2 * 4096)], done.stderr
    assert {record["protocol"] for record in done.records if record["port"] == CLEAR} == {"http"}
    assert rules(done)[:2] == [("/file", 200, None), ("/lab.Peer/Denied", 403, "call")]


def test_h2load_runs_many_streams(weir_lab, policy, peers):
    clear, tls = f"http://{HOST}:{CLEAR}/file", f"https://{HOST}/bytes/1000"
    done = shell(weir_lab, policy, f"h2load -n 60 -c 3 -m 10 {clear}", f"h2load -n 300 -c 3 -m 20 {tls}")
    assert done.stdout.count("60 succeeded, 0 failed") == 1, done.stdout
    assert done.stdout.count("300 succeeded, 0 failed") == 1, done.stdout
    assert len(done.requests) == 360
    assert all((one["status"], one["error"]) == (200, None) for one in done.requests)


def test_grpc_calls_of_every_kind(weir_lab, policy, peers):
    argv = [sys.executable, "-m", "lab.grpc_peer", "ask", f"{HOST}:{GRPC}"]
    done = weir_lab.run_weir(argv, policy)
    assert done.status == 0, done.stderr
    refused = ["PERMISSION_DENIED", "Denied by policy: "]
    told = json.loads(done.stdout)
    for denied in (told["denied"], told["middle"][1]):
        assert denied[0] == refused[0]
        assert denied[1].startswith(refused[1])
    assert [told["middle"][0], *told["middle"][2:]] == ["before", "after"]
    assert told["cut"][0] == "INTERNAL", "what gRPC makes of a reset"
    del told["denied"], told["middle"], told["cut"]
    assert told == {
        "failed": ["FAILED_PRECONDITION", "as asked"],
        "unary": "hello",
        "large": 3_000_000,
        "client": "200000",
        "server": sum(len(b"%d" % number) * 1000 for number in range(200)),
        "both": "ab",
        "deadline": ["DEADLINE_EXCEEDED", "Deadline Exceeded"],
        "late": ["DEADLINE_EXCEEDED", "Deadline Exceeded"],
        "seen": [{"x-mine": "kept", "x-ours": "set"}, {"x-answer": "seen"}],
        "cancelled": ["CANCELLED", "Locally cancelled by application!"],
    }
    errors = {one["path"]: one["error"] for one in done.requests if one["error"]}
    assert (errors.pop("/lab.Peer/Cut"), errors.pop("/lab.Peer/Late")) == ("aborted_by_rule", "client_gone")
    # At its deadline the server ends a call as well; who is first is a race.
    assert errors.items() >= {"/lab.Peer/Many": "client_gone"}.items()
    assert errors.keys() <= {"/lab.Peer/Many", "/lab.Peer/Slow"}
