"""What clients that nobody here wrote tell of HTTP: the same with and without Weir, case by case, in one run of each."""

import base64
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lab.lab import ROOT, WEB, Lab, Run
from lab.policy import Policy

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

HOST = "clients.tls.weir.test"
SECURE, PLAIN = f"https://{HOST}", f"http://{HOST}"
GRPC, SOCKET, CLEAR, TLS = 8543, 8544, 8180, 8545
H2, H2C = f"https://{HOST}:{TLS}", f"http://{HOST}:{CLEAR}"
FILE = "/usr/bin/env"
PYTHON = sys.executable
FRAMES = (
    r"sed -nE 's/^\[[^]]*\] //; s/^(send HEADERS frame <)length=[0-9]+/\1/; /^(recv|send) (\(stream_id|[A-Z_]+ frame)/p'"
    r" | grep -vE 'WINDOW_UPDATE|PING|SETTINGS frame <length=0, flags=0x01| date: |last-modified: ' | sort"
)
"""What nghttp -v says: who sent which frame and which header field, without what depends on the time: when it was, which
windows have opened, which SETTINGS were acknowledged before the end, and whether a block mentions them."""
LANES = 4
DATED = "grep -av '^date: '"


class Case(NamedTuple):
    client: str
    what: str
    command: str


def curl(what: str, *argv: str) -> Case:
    written = "<%{http_code} %{http_version} %{num_connects} %{size_download} %{size_upload}>"
    return Case("curl", what, f"{shlex.join(['curl', '-sS', '-w', written, *argv])} | {DATED}")


def of_version(option: str) -> list[Case]:
    name = option.lstrip("-")
    url = H2C if "prior" in option else SECURE
    dump = ["-D", "-", option]
    whole = [
        curl(f"{name} get", *dump, f"{url}/file" if url is H2C else f"{url}/hello"),
        curl(f"{name} head", option, "-I", f"{url}/nothing", "-o", "/dev/null"),
        curl(f"{name} put", option, "-T", FILE, f"{url}/digest"),
        curl(f"{name} post", option, "-d", "a=b", f"{url}/digest"),
    ]
    site = [  # On a connection without TLS this curl cannot ask twice.
        curl(f"{name} several", option, *[f"{url}/hello?{number}" for number in range(3)], "-o", "/dev/null"),
        curl(
            f"{name} at the same time",
            option,
            "-Z",
            "-w",
            "",
            "--stderr",
            "/dev/null",
            *[f"{url}/hello?{n}" for n in range(5)],
        ),
        curl(f"{name} compressed", *dump, "--compressed", f"{url}/compressed"),
        curl(f"{name} not compressed", *dump, f"{url}/compressed"),
        curl(f"{name} compressed, left so", option, "-H", "Accept-Encoding: gzip", "-o", "-", f"{url}/compressed"),
        curl(f"{name} trailers", *dump, "-H", "TE: trailers", f"{url}/trailers"),
        curl(f"{name} trailers, raw", *dump, "--raw", f"{url}/trailers"),
        curl(f"{name} 103", *dump, f"{url}/hinted"),
        curl(f"{name} chunks up", option, "-H", "Transfer-Encoding: chunked", "-T", FILE, f"{url}/digest"),
        curl(f"{name} form", option, "-H", "Content-Type: x/y", "--data-binary", f"@{FILE}", f"{url}/digest"),
        curl(f"{name} fails", option, "-f", f"{url}/status/503"),
        curl(f"{name} too long", option, "--max-filesize", "10", f"{url}/bytes/1000"),
        curl(f"{name} method", option, "-X", "REPORT", "--data", "", f"{url}/status/207"),
        curl(f"{name} follows", option, "-L", f"{url}/away/{HOST}/hello"),
        curl(f"{name} other cases", option, "-H", "x-MiXeD: Value", "-H", "X-Empty;", f"{url}/headers"),
    ]
    return whole + (site if url is SECURE else [])


def nghttp(what: str, *argv: str) -> Case:
    return Case("nghttp", what, f"{shlex.join(['nghttp', '-nvy', *argv])} 2>&1 | {FRAMES}")


def h2load(what: str, *argv: str) -> Case:
    return Case("h2load", what, f"{shlex.join(['h2load', *argv])} | grep -E '^(requests|status codes):'")


CASES = [
    *of_version("--http1.1"),
    *of_version("--http2"),
    *of_version("--http2-prior-knowledge"),
    curl("http2 without TLS", "--http2", f"{PLAIN}/hello"),
    Case("libcurl", "trailers up", f"{PYTHON} -m lab.send_trailers {SECURE}/trailers $CURL_CA_BUNDLE"),
    Case("libcurl", "trailers up, plain", f"{PYTHON} -m lab.send_trailers {PLAIN}/trailers"),
    nghttp("get", f"{H2}/file"),
    nghttp("without TLS", f"{H2C}/file"),
    nghttp("pushed", f"{H2}/pushing"),
    nghttp("pushed, without TLS", f"{H2C}/pushing"),
    nghttp("push is off", "--no-push", f"{H2}/pushing"),
    nghttp("one push at a time", "--max-concurrent-streams=1", f"{H2}/pushing"),
    nghttp("several", f"{H2}/file", f"{H2}/pushed", f"{H2}/nothing"),
    nghttp("weights", "-p", "3", "-p", "200", f"{H2}/file", f"{H2}/pushed"),
    nghttp("no priorities", "--no-dep", "--no-rfc7540-pri", f"{H2}/file"),
    nghttp("trailers up", "-d", FILE, "--trailer", "x-sum: 11", f"{SECURE}/trailers"),
    nghttp("continuation", "--continuation", f"{SECURE}/hello"),
    nghttp("padding", "-b", "200", "-d", FILE, f"{SECURE}/digest"),
    nghttp("waits for 100", "--expect-continue", "-d", FILE, f"{H2}/file"),
    nghttp("a small table", "-c", "100", f"{SECURE}/hello", f"{SECURE}/headers"),
    nghttp("a larger table, then a small one", "-c", "8192", "-c", "0", f"{SECURE}/hello", f"{SECURE}/hello?2"),
    nghttp("large header fields", "-H", f"x-large: {'x' * 20000}", f"{SECURE}/hello"),
    nghttp("103 and trailers down", f"{SECURE}/hinted", f"{SECURE}/trailers"),
    h2load("HTTP/2", "-n", "200", "-c", "4", "-m", "10", f"{H2}/small"),
    h2load("HTTP/2 without TLS", "-n", "200", "-c", "4", "-m", "10", f"{H2C}/small"),
    h2load("HTTP/1.1", "--h1", "-n", "60", "-c", "3", f"{SECURE}/hello"),
    h2load("HTTP/1.1 without TLS", "--h1", "-n", "60", "-c", "3", f"{PLAIN}/hello"),
    h2load("bodies up", "-n", "40", "-c", "2", "-m", "5", "-d", FILE, f"{SECURE}/digest"),
    h2load("narrow windows", "-n", "40", "-c", "2", "-w", "12", "-W", "14", f"{H2}/file"),
    Case("grpc", "calls", f"{PYTHON} -m lab.grpc_peer ask {HOST}:{GRPC}"),
    Case("h2", "websockets", f"{PYTHON} -m lab.websocket_http2 ask {HOST} {SOCKET}"),
]


@pytest.fixture(scope="module")
def peers(lab: Lab) -> Iterator[None]:
    """Servers beside the lab's origins: nghttpd with and without TLS, one of gRPC, one of WebSockets over HTTP/2."""
    if shutil.which("nghttpd") is None:
        pytest.skip("nghttpd is not installed; `make bench-peers` installs it")
    root = lab.directory / "clients"
    root.mkdir()
    for name, size in {"file": 40000, "pushing": 100, "pushed": 3000, "also": 10, "small": 500}.items():
        (root / name).write_bytes(b"x" * size)
    certificate = str(lab.directory / "tls.pem")
    nghttpd = ["nghttpd", "-a", WEB["tls"], "-d", str(root), "-p/pushing=/pushed,/also"]
    programs = [
        [PYTHON, "-m", "lab.grpc_peer", "serve", certificate, str(GRPC)],
        [PYTHON, "-m", "lab.websocket_http2", "serve", certificate, str(SOCKET)],
        [*nghttpd, "--trailer", "x-end: of it", str(TLS), certificate, certificate],
        [*nghttpd, "--no-tls", str(CLEAR)],
    ]
    environment = {"PYTHONPATH": str(ROOT / "tests"), "PATH": "/usr/bin:/usr/sbin"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment, "text": True}
    started = [subprocess.Popen(lab.network.in_net(argv), **pipes) for argv in programs]
    try:
        for process in started[:2]:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        yield
    finally:
        for process in started[2:]:
            process.terminate()
        for process in started:
            process.communicate(timeout=20)


def script(ca: Path | None = None) -> list[str]:
    """All cases, some at a time. Under Weir nobody is told whom to trust."""
    trust = (
        [] if ca is None else [f"export CURL_CA_BUNDLE={ca} SSL_CERT_FILE={ca} GRPC_DEFAULT_SSL_ROOTS_FILE_PATH={ca}"]
    )
    cases = [f"{{ {case.command}; }} 2>&1 | base64 -w0 >$to/{number}" for number, case in enumerate(CASES)]
    lanes = ["\n".join(["{", *cases[first::LANES], "} &"]) for first in range(LANES)]
    every = f"for n in $(seq 0 {len(CASES) - 1}); do cat $to/$n; echo; done"
    return ["sh", "-c", "\n".join([*trust, "to=$(mktemp -d)", *lanes, "wait", every, "rm -r $to"])]


def told(run: Run) -> dict[Case, str]:
    lines = run.stdout.splitlines()
    assert len(lines) == len(CASES), run.stderr
    return {case: base64.b64decode(line).decode("latin-1") for case, line in zip(CASES, lines, strict=True)}


@pytest.fixture(scope="module")
def direct(lab: Lab, peers: None) -> dict[Case, str]:
    return told(lab.run_direct(script(lab.pki.ca_file)))


@pytest.fixture(scope="module")
def relayed(weir_lab: Lab, peers: None) -> Run:
    return weir_lab.run_weir(script(), Policy(root=weir_lab.pki.ca_file))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.client}: {case.what}")
def test_the_same_with_and_without(case: Case, direct: dict[Case, str], relayed: Run) -> None:
    assert told(relayed)[case] == direct[case]
    assert direct[case]


SHOWN = {
    ("curl", "http1.1 103"): "HTTP/1.1 103 Early Hints",
    ("curl", "http1.1 trailers"): "x-sum: ",
    ("curl", "http1.1 compressed"): "content-encoding: gzip",
    ("curl", "http2 trailers"): "x-sum: ",
    ("curl", "http2 several"): "<200 2 0 ",
    ("curl", "http2-prior-knowledge get"): "<200 2 1 40000 0>",
    ("libcurl", "trailers up"): '{"x-sum": "11", "x-why": "because"}',
    ("nghttp", "pushed"): "recv PUSH_PROMISE frame",
    ("nghttp", "pushed, without TLS"): "recv PUSH_PROMISE frame",
    ("nghttp", "weights"): "send PRIORITY frame",
    ("nghttp", "waits for 100"): ":status: 100",
    ("nghttp", "103 and trailers down"): ":status: 103",
    ("nghttp", "get"): "x-end: of it",
    ("h2load", "HTTP/2"): "200 succeeded, 0 failed",
    ("h2", "websockets"): '"ENABLE_CONNECT_PROTOCOL": 1',
}


@pytest.mark.parametrize(("client", "what"), SHOWN)
def test_the_cases_are_about_what_they_say(client: str, what: str, direct: dict[Case, str]) -> None:
    (text,) = (text for case, text in direct.items() if case[:2] == (client, what))
    assert SHOWN[client, what] in text


def test_no_push_where_the_client_wants_none(direct: dict[Case, str]) -> None:
    (text,) = (text for case, text in direct.items() if case.what == "push is off")
    assert "PUSH_PROMISE" not in text


def test_every_websocket_comes_back(direct: dict[Case, str]) -> None:
    (text,) = (text for case, text in direct.items() if case.client == "h2")
    came = json.loads(text)
    del came["settings"]
    assert len(came) >= 100
    assert all(came.values()), came


def test_each_push_is_told(relayed: Run) -> None:
    pushed = [one["path"] for one in relayed.requests if one["protocol"] == "h2" and one["number"] % 2 == 0]
    assert {"/pushed", "/also"} <= set(pushed)
