"""A credential on one machine: it reaches its host, by no way another, and is nowhere where the command could read it."""

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from lab.lab import ROOT, WEIR, Lab, Run
from lab.policy import Policy

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

HOST = "key.tls.weir.test"
OTHER = "other.tls.weir.test"
MARK = "the-key-of-the-command"
SECRET = f"weir-key-{sha256(MARK.encode()).hexdigest()[:32]}"
PATTERN = "weir-key-[0-9a-f]{32}"
DECOY = "weir-decoy-of-the-test"
PROGRAMS = ROOT / "tests/lab/programs"
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3"]
"""Root could read any file on one machine, the secret's among them."""


def _get(path: str, host: str, *fields: str, method: str = "GET") -> str:
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", ""))


AUTHORIZED = f"Authorization: Bearer {MARK}"
_PAGE = "/authorization"
_LEAK = f"a={MARK}"
HTTP1 = {
    "to its host": ("https", [_get(_PAGE, HOST, AUTHORIZED)]),
    "to another host of the connection": ("https", [_get(_PAGE, HOST, AUTHORIZED), _get(_PAGE, OTHER, AUTHORIZED)]),
    "in absolute form": ("https", [_get(f"https://{OTHER}{_PAGE}", OTHER, AUTHORIZED)]),
    "in absolute form beside its host": ("https", [_get(f"https://{OTHER}{_PAGE}", HOST, AUTHORIZED)]),
    "by CONNECT": ("https", [_get(f"{OTHER}:443", f"{OTHER}:443", AUTHORIZED, method="CONNECT")]),
    "in the clear": ("http", [_get(_PAGE, HOST, AUTHORIZED)]),
    "in a body": ("https", [_get("/digest", HOST, f"Content-Length: {len(_LEAK)}", method="POST") + _LEAK]),
}
REFUSED = {
    "to another host of the connection": (403, "placeholder_misused"),
    "in absolute form": (403, "placeholder_misused"),
    "in absolute form beside its host": (400, "malformed_request"),
    "by CONNECT": (403, "placeholder_misused"),
    "in the clear": (403, "credential_misdirected"),
    "in a body": (0, "placeholder_misused"),
}
HTTP2 = [
    {"authority": HOST, "path": _PAGE, "headers": {"authorization": f"Bearer {MARK}"}},
    {"authority": OTHER, "path": _PAGE, "headers": {"authorization": f"Bearer {MARK}"}},
    {"authority": HOST, "path": f"/{MARK}"},
    {"authority": HOST, "path": "/digest", "body": [_LEAK[:9], _LEAK[9:]]},
]


def _script(scratch: Path) -> str:
    """All of it in one run; what each part prints goes to a file of its own."""

    # Nobody may not read the checkout, maybe.
    send, search = (str(shutil.copy(PROGRAMS / program, scratch)) for program in ("send.py", "search.py"))

    def part(name: str, *argv: str) -> str:
        quoted = " ".join("'" + one.replace("'", "'\\''") + "'" for one in argv)
        return f"{quoted} >'{scratch / name}' 2>&1"

    sends = [
        part(name, *AS_NOBODY, send, f"{scheme}://{HOST}", *requests) for name, (scheme, requests) in HTTP1.items()
    ]
    follow = ["curl", "-sS", "--http1.1", "-L", "--location-trusted", "-w", "<%{http_code} %{num_redirects}>"]
    return "\n".join((
        *sends,
        part("redirect", *follow, "-H", AUTHORIZED, f"https://{HOST}/away/{OTHER}{_PAGE}"),
        part("http2", sys.executable, "-m", "lab.send_http2", HOST, *map(json.dumps, HTTP2)),
        part("decoy", *AS_NOBODY, search, "weir-deco[y]-", "15802", str(scratch)),
        part("search", *AS_NOBODY, search, PATTERN, "15802", "/run", str(scratch.parent)),
    ))  # fmt: skip


class Told:
    def __init__(self, run: Run, scratch: Path) -> None:
        self.run = run
        self.scratch = scratch

    def said(self, name: str) -> str:
        return (self.scratch / name).read_text()

    def answers(self, name: str) -> list[dict]:
        return [json.loads(line) for line in self.said(name).splitlines()]


@pytest.fixture(scope="module")
def told(weir_lab: Lab) -> Told:
    secret = weir_lab.directory / "key"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o400)
    os.chown(secret, 15801, 15801)
    scratch = weir_lab.directory / "told"
    scratch.mkdir(mode=0o777)
    scratch.chmod(0o777)
    credential = {"header": "Authorization", "file": str(secret), "placeholder": MARK}
    rules = [
        {"name": "key", "match": {"hosts": [HOST]}, "action": "Intercept", "http": [{"credentialFrom": credential}]},
        {"name": "other", "match": {"hosts": [OTHER]}, "action": "Intercept"},
    ]
    logging = {"headers": "All", "query": "All", "bodies": {"request": True, "response": True}}
    policy = Policy(
        root=weir_lab.pki.ca_file, interception={"rules": rules, "logging": logging, "defaultAction": "Deny"}
    )
    argv = ["env", f"DECOY={DECOY}", "sh", "-c", _script(scratch)]
    return Told(weir_lab.run_weir(argv, policy), scratch)


def _digest(secret: str) -> str:
    return sha256(f"Bearer {secret}".encode()).hexdigest()


def test_its_host_gets_it_by_http1_and_http2(told: Told) -> None:
    assert [one["body"] for one in told.answers("to its host")] == [_digest(SECRET)]
    assert told.answers("http2")[0] == {"status": "200", "body": _digest(SECRET)}


@pytest.mark.parametrize("name", REFUSED)
def test_nobody_else_gets_it_or_what_stands_for_it(told: Told, name: str) -> None:
    status, error = REFUSED[name]
    last = told.answers(name)[-1]
    assert last["status"] == status
    assert error in {one["error"] for one in told.run.requests}
    assert _digest(SECRET) not in last["body"]
    assert _digest(MARK) not in last["body"]


def test_a_redirect_takes_it_nowhere(told: Told) -> None:
    assert told.said("redirect").endswith("<403 1>")


def test_another_authority_and_another_place_of_http2_are_refused(told: Told) -> None:
    _, other, path, *body = told.answers("http2")
    assert other["status"] == path["status"] == "403"
    assert body == [{"status": "", "body": "reset"}]


def test_it_is_nowhere_where_the_command_could_read_it(told: Told) -> None:
    assert "/environ" in told.said("decoy"), "the search itself does not work"
    assert told.said("search").rstrip().endswith("found"), told.said("search")


def test_it_is_in_nothing_that_is_told(told: Told) -> None:
    record = told.run.record_file
    assert record is not None
    assert {one["error"] for one in told.run.requests} >= {None, "placeholder_misused"}
    made = [[WEIR, "flows", record, "--har", "-"], [WEIR, "flows", record, "-o", "json", "--last", "100000"]]
    shown = [subprocess.run(argv, capture_output=True, text=True, check=True).stdout for argv in made]
    assert HOST in shown[0]
    for text in (record.read_text(), told.run.stdout, told.run.stderr, *shown):
        assert SECRET not in text
